//! Prometheus' families of numbers, each with its name, its meaning and a sample or more.

use prometheus::proto::{
    Bucket, Counter, Gauge, Histogram, LabelPair, Metric, MetricFamily, MetricType,
};
use raft_store::{BOUNDS_US, Distribution};

/// The labels of a sample.
pub type Labels<'l> = &'l [(&'l str, &'l str)];

/// A number that goes up and down.
pub fn gauge(name: &str, help: &str, value: u64) -> MetricFamily {
    family(name, help, MetricType::GAUGE, vec![gauged(&[], value)])
}

/// A number that only grows.
pub fn counter(name: &str, help: &str, value: u64) -> MetricFamily {
    family(name, help, MetricType::COUNTER, vec![counted(&[], value)])
}

/// How long something took.
pub fn histogram(name: &str, help: &str, distribution: &Distribution) -> MetricFamily {
    let metrics = vec![distributed(&[], distribution)];
    family(name, help, MetricType::HISTOGRAM, metrics)
}

/// Several samples; a family without any is left out by the caller.
pub fn family(name: &str, help: &str, kind: MetricType, metrics: Vec<Metric>) -> MetricFamily {
    let mut family = MetricFamily::default();
    family.set_name(name.to_owned());
    family.set_help(help.to_owned());
    family.set_field_type(kind);
    family.set_metric(metrics);
    family
}

/// A sample of a gauge.
pub fn gauged(labels: Labels<'_>, value: u64) -> Metric {
    let mut gauge = Gauge::default();
    gauge.set_value(value as f64);
    let mut metric = Metric::from_label(pairs(labels));
    metric.set_gauge(gauge);
    metric
}

/// A sample of a counter.
pub fn counted(labels: Labels<'_>, value: u64) -> Metric {
    let mut counter = Counter::default();
    counter.set_value(value as f64);
    let mut metric = Metric::from_label(pairs(labels));
    metric.set_counter(counter);
    metric
}

/// A sample of a histogram, in seconds.
pub fn distributed(labels: Labels<'_>, distribution: &Distribution) -> Metric {
    let mut below = 0;
    let buckets = BOUNDS_US.iter().zip(&distribution.counts);
    let buckets = buckets.map(|(bound, count)| {
        below += count;
        let mut bucket = Bucket::default();
        bucket.set_upper_bound(*bound as f64 / 1e6);
        bucket.set_cumulative_count(below);
        bucket
    });
    let mut histogram = Histogram::default();
    histogram.set_bucket(buckets.collect());
    histogram.set_sample_count(distribution.count());
    histogram.set_sample_sum(distribution.total_us as f64 / 1e6);
    let mut metric = Metric::from_label(pairs(labels));
    metric.set_histogram(histogram);
    metric
}

fn pairs(labels: Labels<'_>) -> Vec<LabelPair> {
    let pairs = labels.iter().map(|(name, value)| {
        let mut pair = LabelPair::default();
        pair.set_name((*name).to_owned());
        pair.set_value((*value).to_owned());
        pair
    });
    pairs.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use prometheus::TextEncoder;

    #[test]
    fn a_histogram_is_told_in_seconds_and_sums() {
        let mut distribution = Distribution {
            counts: vec![0; BOUNDS_US.len() + 1],
            total_us: 3_000_700,
        };
        distribution.counts[3] = 2;
        distribution.counts[BOUNDS_US.len()] = 1;
        let text = TextEncoder::new()
            .encode_to_string(&[histogram("took_seconds", "How long.", &distribution)])
            .expect("it is encoded");
        for line in [
            "# TYPE took_seconds histogram",
            "took_seconds_bucket{le=\"0.0005\"} 0",
            "took_seconds_bucket{le=\"0.001\"} 2",
            "took_seconds_bucket{le=\"8.192\"} 2",
            "took_seconds_bucket{le=\"+Inf\"} 3",
            "took_seconds_sum 3.0007",
            "took_seconds_count 3",
        ] {
            assert!(
                text.lines().any(|told| told == line),
                "{line} is missing in:\n{text}"
            );
        }
    }
}
