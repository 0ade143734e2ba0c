//! The query of GET /profile/nodes and the body of POST /profile/nodes/reset.

use super::fields::{Fields, excerpt};
use crate::http::error::ApiError;
use crate::trace::sample::By;
use crate::trace::schema::GraphKey;

/// What is asked of sampled node times.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct NodesQuery {
    /// What a row is about.
    pub(crate) by: By,
    /// One graph; all if it is not said which.
    pub(crate) graph: Option<GraphKey>,
}

impl NodesQuery {
    /// Parses what follows the path's `?`.
    pub(crate) fn parse(query: &str) -> Result<NodesQuery, ApiError> {
        let (mut by, mut graph) = (None, None);
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            match name {
                "by" => once("by", &mut by, value, "node, layer or op")?,
                "graph" => once("graph", &mut graph, value, "a name such as forward.decode.8: see vitrum graph")?,
                _ => return Err(ApiError::Unknown { param: excerpt(name) }),
            }
        }
        Ok(NodesQuery { by: by.unwrap_or_default(), graph })
    }
}

/// Parses a body, which may be empty and has no field.
pub(crate) fn parse_reset(body: &[u8]) -> Result<(), ApiError> {
    if body.trim_ascii().is_empty() { Ok(()) } else { Fields::parse(body)?.finish(&[]) }
}

fn once<T: std::str::FromStr>(
    name: &'static str,
    slot: &mut Option<T>,
    value: &str,
    expected: &'static str,
) -> Result<(), ApiError> {
    if slot.is_some() {
        let (expected, given) = ("given once".into(), "given twice".into());
        return Err(ApiError::Invalid { param: name.to_owned(), expected, given });
    }
    let invalid = |_| ApiError::Invalid { param: name.to_owned(), expected: expected.into(), given: excerpt(value) };
    *slot = Some(value.parse().map_err(invalid)?);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::schema::GraphKind;

    #[test]
    fn what_is_asked_is_honoured_or_refused_by_name() {
        let graph = Some(GraphKey { kind: GraphKind::ForwardDecode, bucket: 8 });
        let good = [
            ("", NodesQuery::default()),
            ("by=op", NodesQuery { by: By::Op, graph: None }),
            ("&by=layer&", NodesQuery { by: By::Layer, graph: None }),
            ("graph=forward.decode.8&by=node", NodesQuery { by: By::Node, graph }),
        ];
        for (query, expected) in good {
            assert_eq!(NodesQuery::parse(query).expect(query), expected, "{query}");
        }
        let bad = [
            ("by=colour", "by has to be node, layer or op, and is colour"),
            ("by", "by has to be node, layer or op, and is "),
            ("by=op&by=layer", "by has to be given once, and is given twice"),
            ("graph=8", "graph has to be a name such as forward.decode.8: see vitrum graph, and is 8"),
            ("graph=forward.decode.99999999999", "forward.decode.99999999999"),
            ("top=5", "top is not a parameter of this request"),
            ("%62y=op", "%62y is not a parameter"),
        ];
        for (query, words) in bad {
            let error = NodesQuery::parse(query).expect_err(query).to_string();
            assert!(error.contains(words), "{query}: {error}");
        }
        let long = format!("{}=1", "x".repeat(5000));
        assert!(NodesQuery::parse(&long).expect_err("unknown").to_string().len() < 120);
    }

    #[test]
    fn a_reset_takes_nothing() {
        for body in ["", " ", "{}"] {
            parse_reset(body.as_bytes()).expect(body);
        }
        for (body, words) in [("{\"graph\": 1}", "graph is not a parameter"), ("[]", "not a JSON object")] {
            let error = parse_reset(body.as_bytes()).expect_err(body).to_string();
            assert!(error.contains(words), "{body}: {error}");
        }
    }
}
