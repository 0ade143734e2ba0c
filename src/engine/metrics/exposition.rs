//! Prometheus' text format 0.0.4 from the client library's OpenMetrics text.
//!
//! The two differ in a counter's headers, which the older format gives the name of the sample, and in the end mark.
//! Everything that scrapes a vLLM server reads the older format.

use std::fmt;

use prometheus_client::encoding::text;
use prometheus_client::registry::Registry;

pub(super) fn encode(registry: &Registry) -> Result<String, fmt::Error> {
    let mut open_metrics = String::with_capacity(32 << 10);
    text::encode_registry(&mut open_metrics, registry)?;
    let mut plain = String::with_capacity(open_metrics.len() + 1024);
    let mut lines = open_metrics.split_inclusive('\n').peekable();
    while let Some(line) = lines.next() {
        match (line.strip_prefix("# HELP "), lines.peek().and_then(|next| counter_name(next))) {
            (Some(rest), Some(name)) if rest.starts_with(name) => {
                plain.push_str(&format!("# HELP {name}_total{}", &rest[name.len()..]));
            }
            _ => match counter_name(line) {
                Some(name) => plain.push_str(&format!("# TYPE {name}_total counter\n")),
                None => plain.push_str(line),
            },
        }
    }
    Ok(plain)
}

/// A label's value as it stands between quotes; the library leaves that to its user.
pub(super) fn escape(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

fn counter_name(line: &str) -> Option<&str> {
    line.strip_prefix("# TYPE ")?.strip_suffix(" counter\n")
}

#[cfg(test)]
mod tests {
    use prometheus_client::metrics::counter::Counter;
    use prometheus_client::metrics::gauge::Gauge;

    use super::*;

    #[test]
    fn a_counters_headers_have_its_samples_name() {
        let mut registry = Registry::default();
        let counter = Counter::<u64>::default();
        counter.inc_by(3);
        registry.register("a:hits", "Hits", counter);
        registry.register("a:depth", "Depth", Gauge::<i64>::default());
        assert_eq!(
            encode(&registry).unwrap(),
            "# HELP a:hits_total Hits.\n# TYPE a:hits_total counter\na:hits_total 3\n\
             # HELP a:depth Depth.\n# TYPE a:depth gauge\na:depth 0\n"
        );
    }
}
