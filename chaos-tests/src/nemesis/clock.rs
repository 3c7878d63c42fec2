//! A member's clocks run at another rate, or its wall clock jumps.

use super::{Effect, Fault};
use crate::faketime;
use anyhow::{Result, ensure};
use rand::RngExt;
use std::time::{Duration, Instant};

/// Rates beyond this are no drift of a clock any more, but another machine.
const RATES: std::ops::RangeInclusive<u32> = 70..=150;
/// How far the wall clock jumps, in seconds, either way.
const JUMP: i64 = 60;

impl Fault<'_> {
    /// The member runs anew with the wrong rate, leads if it can be made to, and runs anew with the right rate.
    pub(super) async fn clock_rate(&mut self) -> Result<Effect> {
        let name = self.any();
        let mut rate = f64::from(self.rng.random_range(RATES)) / 100.0;
        if (0.95..1.05).contains(&rate) {
            rate = 1.25;
        }
        self.bed.clock(&name)?;
        self.bed.kill(&name).await?;
        self.bed.clock(&name)?.set_rate(rate)?;
        self.bed.start_member(&name)?;
        self.bed.wait_until_whole().await?;
        ensure!(
            faketime::is_faked(self.bed.pid(&name)?),
            "{name} did not load libfaketime"
        );
        self.installed(std::slice::from_ref(&name));
        let leader = self.bed.wait_for_leader().await?.name;
        // A leader with a wrong clock is worse than a follower; where the store does not hand over, a follower it is.
        let led = leader == name || self.bed.probe()?.move_leader(&leader, &name).await.is_ok();
        self.hold().await?;
        let role = if led { "led" } else { "followed" };
        Ok(Effect::Seen(format!(
            "{name} {role} with its clocks at {rate} times the rate"
        )))
    }

    pub(super) async fn clock_jump(&mut self) -> Result<Effect> {
        let name = self.leader.clone();
        self.bed.clock(&name)?;
        ensure!(
            faketime::is_faked(self.bed.pid(&name)?),
            "{name} did not load libfaketime"
        );
        self.installed(std::slice::from_ref(&name));
        let until = self.until();
        let mut jumps = Vec::new();
        while Instant::now() < until {
            let seconds = self.rng.random_range(-JUMP..=JUMP);
            self.bed.clock(&name)?.jump(seconds)?;
            jumps.push(format!("{seconds:+} s"));
            // The library looks once a second.
            tokio::time::sleep(Duration::from_millis(1200)).await;
            self.look_after()?;
        }
        Ok(Effect::Seen(format!("{name} was at {}", jumps.join(", "))))
    }
}
