//! Members end, stop and start.

use super::{Effect, Fault};
use anyhow::Result;

impl Fault<'_> {
    pub(super) async fn kill(&mut self, targets: Vec<String>) -> Result<Effect> {
        self.installed(&targets);
        for name in &targets {
            self.bed.kill(name).await?;
        }
        self.hold().await?;
        Ok(Effect::Seen(format!("{} killed", targets.join(", "))))
    }

    pub(super) async fn pause(&mut self) -> Result<Effect> {
        let leader = self.leader.clone();
        self.bed.pause(&leader)?;
        self.installed(std::slice::from_ref(&leader));
        self.hold().await?;
        let state = std::fs::read_to_string(format!("/proc/{}/stat", self.bed.pid(&leader)?));
        if state.is_ok_and(|state| state.contains(") T ")) {
            Ok(Effect::Seen(format!("{leader} stood still")))
        } else {
            Ok(Effect::Unseen(format!(
                "{leader} was not seen to stand still"
            )))
        }
    }

    pub(super) async fn restart(&mut self) -> Result<Effect> {
        let name = self.any();
        self.installed(std::slice::from_ref(&name));
        self.bed.stop(&name).await?;
        self.hold().await?;
        Ok(Effect::Seen(format!("{name} stopped in order")))
    }

    pub(super) async fn rolling(&mut self) -> Result<Effect> {
        let mut order = self.others();
        order.push(self.leader.clone());
        self.installed(&order);
        for name in &order {
            self.bed.stop(name).await?;
            self.bed.start_member(name)?;
            self.bed.wait_until_whole().await?;
        }
        Ok(Effect::Seen(format!(
            "{} stopped in order",
            order.join(", ")
        )))
    }
}
