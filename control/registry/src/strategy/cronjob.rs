//! CronJobs: jobs by the clock. Rules: Kubernetes' batch/v1 defaults and validation.

use super::Strategy;
use super::check::{at_least, choice};
use super::edit::{Members, default, default_text, map_at, read_map, read_text};
use super::job::validate_job_spec;
use super::template::default_template;
use crate::Faults;
use objects::cron::Schedule;
use objects::{Object, names};

/// The cron jobs' strategy.
pub struct CronJobs;

/// A job's name is that of its cron job with up to eleven letters of a time after it.
const NAME_MAX: usize = 63 - 11;
const NUMBERS: [&str; 3] = [
    "startingDeadlineSeconds",
    "successfulJobsHistoryLimit",
    "failedJobsHistoryLimit",
];

impl Strategy for CronJobs {
    fn default_fields(&self, object: &mut Object) {
        let Some(spec) = map_at(&mut object.body, "spec") else {
            return;
        };
        default_text(spec, "concurrencyPolicy", "Allow");
        default(spec, "suspend", false);
        default(spec, "successfulJobsHistoryLimit", 3);
        default(spec, "failedJobsHistoryLimit", 1);
        if let Some(template) = map_at(spec, "jobTemplate") {
            map_at(template, "metadata");
            if let Some(job) = map_at(template, "spec") {
                default_template(job);
            }
        }
    }

    fn validate(&self, object: &Object, faults: &mut Faults) {
        let Some(spec) = read_map(&object.body, "spec") else {
            return;
        };
        check_schedule(spec, faults);
        let policies = ["Allow", "Forbid", "Replace"];
        choice(spec, "concurrencyPolicy", "spec", &policies, faults);
        for name in NUMBERS {
            at_least(spec, name, "spec", 0, faults);
        }
        let job = read_map(spec, "jobTemplate").and_then(|template| read_map(template, "spec"));
        if let Some(job) = job {
            validate_job_spec(job, "spec.jobTemplate.spec", faults);
            if job.contains_key("selector") {
                let detail = "`selector` will be auto-generated";
                faults.invalid("spec.jobTemplate.spec.selector", &job["selector"], detail);
            }
        }
    }

    fn validate_name(&self, name: &str) -> Vec<String> {
        let mut found = names::dns1123_subdomain(name);
        if name.len() > NAME_MAX {
            found.push(format!("must be no more than {NAME_MAX} characters"));
        }
        found
    }

    fn has_generation(&self) -> bool {
        true
    }
}

fn check_schedule(spec: &Members, faults: &mut Faults) {
    let schedule = read_text(spec, "schedule");
    match Schedule::parse(schedule) {
        _ if schedule.is_empty() => faults.required("spec.schedule", ""),
        Err(error) => faults.invalid_text("spec.schedule", schedule, &error.to_string()),
        Ok(_) => {}
    }
    let zone = spec.get("timeZone").and_then(|zone| zone.as_str());
    if let Some(zone) = zone.filter(|zone| !matches!(*zone, "UTC" | "Etc/UTC")) {
        let detail =
            "this server runs schedules in UTC only; write Etc/UTC, or leave the field out";
        faults.invalid_text("spec.timeZone", zone, detail);
    }
}
