//! The search against histories told by hand and against trying every order.

use super::*;
use proptest::prelude::*;

fn op(invoked_ns: u64, returned_ns: Option<u64>, action: Action) -> Op {
    Op {
        id: invoked_ns,
        process: 0,
        invoked_ns,
        returned_ns,
        action,
        revision: None,
    }
}

fn verdict(ops: &[Op]) -> Outcome {
    check(ops, Limits::default(), &AtomicBool::new(false))
}

fn cas(from: Value, to: Value, swapped: bool) -> Action {
    Action::Cas { from, to, swapped }
}

#[test]
fn orders_concurrent_operations() {
    let ops = [
        op(0, Some(10), Action::Write(1)),
        op(1, Some(9), Action::Read(0)),
        op(2, Some(8), Action::Read(1)),
    ];
    assert_eq!(verdict(&ops), Outcome::Legal(vec![1, 0, 2]));
}

#[test]
fn refuses_a_stale_read_and_names_it() {
    let ops = [
        op(0, Some(1), Action::Write(1)),
        op(2, Some(3), Action::Write(2)),
        op(4, Some(5), Action::Read(1)),
        op(6, Some(7), Action::Read(2)),
    ];
    assert_eq!(verdict(&ops), Outcome::Illegal);
    let fault = first_fault(&ops, Limits::default()).expect("a fault");
    assert_eq!((fault.offending, fault.last_good), (2, vec![0, 1]));
}

#[test]
fn lets_an_unknown_write_happen_late_or_never() {
    let unknown = op(0, None, Action::Write(7));
    let early = op(1, Some(2), Action::Read(0));
    let late = op(90, Some(91), Action::Read(7));
    let back = op(92, Some(93), Action::Read(0));
    assert!(matches!(
        verdict(&[unknown.clone(), early.clone()]),
        Outcome::Legal(_)
    ));
    assert!(matches!(
        verdict(&[unknown.clone(), early.clone(), late.clone()]),
        Outcome::Legal(_)
    ));
    assert_eq!(verdict(&[unknown, early, late, back]), Outcome::Illegal);
}

#[test]
fn a_refused_compare_needs_a_reason() {
    let refused = op(2, Some(3), cas(1, 2, false));
    let write = op(0, Some(1), Action::Write(1));
    assert_eq!(verdict(&[write.clone(), refused.clone()]), Outcome::Illegal);
    // A write that nobody saw can be the reason.
    let unknown = op(1, None, Action::Write(9));
    assert!(matches!(
        verdict(&[write, unknown, refused]),
        Outcome::Legal(_)
    ));
}

#[test]
fn gives_up_rather_than_guess() {
    let ops: Vec<Op> = (0..40)
        .map(|at| op(at, Some(1000), Action::Write(at + 1)))
        .chain([op(2000, Some(2001), Action::Read(99))])
        .collect();
    let limits = Limits {
        memo_max: 10_000,
        ..Limits::default()
    };
    let outcome = check(&ops, limits, &AtomicBool::new(false));
    assert_eq!(outcome, Outcome::Unknown(GivenUp::Memory));
    let limits = Limits {
        deadline: Duration::ZERO,
        ..Limits::default()
    };
    let outcome = check(&ops, limits, &AtomicBool::new(false));
    assert_eq!(outcome, Outcome::Unknown(GivenUp::Deadline));
    let outcome = check(&ops, Limits::default(), &AtomicBool::new(true));
    assert_eq!(outcome, Outcome::Unknown(GivenUp::Cancelled));
}

/// Tries every order.
fn by_brute_force(ops: &[Op], taken: u32, state: Value) -> bool {
    let is_left = |at: usize| taken & (1 << at) == 0;
    let must_wait_until = (0..ops.len())
        .filter(|&at| is_left(at))
        .filter_map(|at| ops[at].returned_ns)
        .min();
    let Some(must_wait_until) = must_wait_until else {
        return true;
    };
    (0..ops.len())
        .filter(|&at| is_left(at) && ops[at].invoked_ns <= must_wait_until)
        .any(|at| {
            ops[at]
                .action
                .step(state)
                .is_some_and(|after| by_brute_force(ops, taken | 1 << at, after))
        })
}

fn arbitrary_action() -> impl Strategy<Value = Action> {
    prop_oneof![
        3 => (0..4_u64).prop_map(Action::Read),
        2 => (1..4_u64).prop_map(Action::Write),
        2 => (0..4_u64, 1..4_u64, any::<bool>()).prop_map(|(from, to, swapped)| cas(from, to, swapped)),
    ]
}

fn arbitrary_ops() -> impl Strategy<Value = Vec<Op>> {
    let one = (0..24_u64, 1..12_u64, 0..6_u8, arbitrary_action()).prop_map(
        |(invoked, lasts, luck, action)| {
            let writes = action.writes().is_some();
            op(
                invoked,
                (luck > 0 || !writes).then_some(invoked + lasts),
                action,
            )
        },
    );
    prop::collection::vec(one, 1..8)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn agrees_with_trying_every_order(ops in arbitrary_ops()) {
        let expected = by_brute_force(&ops, 0, INITIAL);
        match verdict(&ops) {
            Outcome::Legal(order) => {
                prop_assert!(expected);
                let state = order.iter().try_fold(INITIAL, |state, &at| ops[at].action.step(state));
                prop_assert!(state.is_some(), "the order told is no order");
            }
            Outcome::Illegal => {
                prop_assert!(!expected);
                let fault = first_fault(&ops, Limits::default()).expect("a fault");
                prop_assert!(ops[fault.offending].returned_ns.is_some());
            }
            Outcome::Unknown(_) => prop_assert!(false, "small histories are decided"),
        }
    }
}
