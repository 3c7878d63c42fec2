//! `ctl member check`: whether all masters hold the same data.

use crate::cli::{Output, OutputArg};
use crate::context::Context;
use crate::output;
use anyhow::{Result, bail};
use client::{Deadline, Payload};
use http::Method;
use objects::cluster::MemberCheck;
use std::time::Duration;

/// Every master reads all its data for the answer.
const CHECK_DEADLINE: Deadline = Deadline(Duration::from_secs(150));

/// Prints what each has; fails where one differs or could not be compared.
pub async fn run(context: &Context, args: OutputArg) -> Result<()> {
    let checks: Vec<MemberCheck> = context
        .client
        .call(
            Method::POST,
            "/cluster/v1/check",
            Payload::Empty,
            CHECK_DEADLINE,
        )
        .await?;
    match args.output {
        Output::Json => output::json(&checks)?,
        Output::Yaml => output::yaml(&checks)?,
        _ => {
            let headers = ["Id", "Name", "Revision", "Same", "Problem"].map(str::to_owned);
            output::table(&headers, checks.iter().map(row).collect());
        }
    }
    let unsure = checks.iter().filter(|check| check.same != Some(true));
    match unsure.count() {
        0 => Ok(()),
        count => bail!(
            "{count} of {} masters differ or could not be compared",
            checks.len()
        ),
    }
}

fn row(check: &MemberCheck) -> Vec<String> {
    let same = match check.same {
        Some(true) => "yes",
        Some(false) => "no",
        None => "unknown",
    };
    vec![
        check.member.id.to_string(),
        check.member.name.clone(),
        check.revision.to_string(),
        same.to_owned(),
        check.problem.clone().unwrap_or_default(),
    ]
}
