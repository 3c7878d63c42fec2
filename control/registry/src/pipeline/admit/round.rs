//! What a round of those who may change an object left to do: whoever wishes it is asked once more when others changed the object after
//! it had answered. The same for webhooks and for policies (`reinvocationPolicy: IfNeeded`).

use objects::Object;

/// A round.
#[derive(Default)]
pub struct Round {
    /// Whether any changed the object.
    pub changed: bool,
    /// Those who wish to be asked again, by whom they belong to and their name, each with how it left the object.
    asked: Vec<(String, String, Object)>,
}

impl Round {
    /// Notes that one who wishes to be asked again left the object so.
    pub fn ask_again(&mut self, owner: &str, name: &str, left: &Object) {
        let asked = (owner.to_owned(), name.to_owned(), left.clone());
        self.asked.push(asked);
    }

    /// Whether that one is to be asked again about the object as it is now.
    pub fn is_due(&self, owner: &str, name: &str, now: &Object) -> bool {
        let mut asked = self.asked.iter();
        let left = asked.find(|(of, known, _)| of == owner && known == name);
        left.is_some_and(|(_, _, left)| left != now)
    }
}
