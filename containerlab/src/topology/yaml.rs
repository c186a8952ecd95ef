//! YAML values with their positions, read with complaints collected instead of stopping at the first.

use super::{Fault, Pos};
use marked_yaml::types::{MarkedMappingNode, MarkedScalarNode, Node, Span};
use marked_yaml::{LoadError, LoaderOptions, parse_yaml_with_options};
use std::collections::BTreeMap;

/// Complaints so far.
#[derive(Default)]
pub(super) struct Complaints(pub(super) Vec<Fault>);

impl Complaints {
    pub(super) fn add(&mut self, at: Pos, text: impl Into<String>) {
        self.0.push(Fault { at, text: text.into() });
    }
}

pub(super) fn pos(span: &Span) -> Pos {
    span.start().map_or(Pos { line: 1, column: 1 }, |m| Pos { line: m.line(), column: m.column() })
}

/// The top-level mapping.
pub(super) fn load(text: &str) -> Result<MarkedMappingNode, Fault> {
    let options = LoaderOptions::default().error_on_duplicate_keys(true).prevent_coercion(true);
    let fault =
        |m: marked_yaml::Marker, text: String| Fault { at: Pos { line: m.line(), column: m.column() }, text };
    match parse_yaml_with_options(0, text, options) {
        Ok(Node::Mapping(m)) => Ok(m),
        Ok(other) => Err(Fault { at: pos(other.span()), text: "a topology file is a mapping".to_owned() }),
        Err(LoadError::TopLevelMustBeMapping(m) | LoadError::TopLevelMustBeSequence(m)) => {
            Err(fault(m, "a topology file is a mapping with `name` and `topology`".to_owned()))
        }
        Err(LoadError::UnexpectedAnchor(m)) => Err(fault(m, "YAML anchors are not supported".to_owned())),
        Err(LoadError::MappingKeyMustBeScalar(m)) => Err(fault(m, "a key must be a plain word".to_owned())),
        Err(LoadError::UnexpectedTag(m)) => Err(fault(m, "YAML tags are not supported".to_owned())),
        Err(LoadError::DuplicateKey(d)) => Err(Fault {
            at: pos(d.key.span()),
            text: format!("`{}` is set twice; first on line {}", d.key.as_str(), pos(d.prev_key.span()).line),
        }),
        Err(other @ LoadError::ScanError(m, _)) => Err(fault(m, scan_error(&other))),
    }
}

fn scan_error(e: &LoadError) -> String {
    // Its text begins with the position, which is printed already.
    let text = e.to_string();
    let words = text.split_once(": ").map_or(text.as_str(), |(_, rest)| rest);
    format!("not YAML: {words}")
}

pub(super) fn entries(m: &MarkedMappingNode) -> impl Iterator<Item = (&str, Pos, &Node)> {
    m.iter().map(|(k, v)| (k.as_str(), pos(k.span()), v))
}

fn is_null(n: &Node) -> bool {
    matches!(n, Node::Scalar(s) if matches!(s.as_str(), "" | "~" | "null"))
}

/// A mapping; nothing at all counts as an empty one.
pub(super) fn mapping<'a>(n: &'a Node, what: &str, c: &mut Complaints) -> Option<&'a MarkedMappingNode> {
    if is_null(n) {
        return None;
    }
    let m = n.as_mapping();
    if m.is_none() {
        c.add(pos(n.span()), format!("{what} must be a mapping"));
    }
    m
}

/// A scalar.
pub(super) fn scalar<'a>(n: &'a Node, what: &str, c: &mut Complaints) -> Option<&'a MarkedScalarNode> {
    let s = n.as_scalar();
    if s.is_none() {
        c.add(pos(n.span()), format!("{what} must be a single value"));
    }
    s
}

/// A list of scalars with their positions.
pub(super) fn list(n: &Node, what: &str, c: &mut Complaints) -> Vec<(String, Pos)> {
    if is_null(n) {
        return Vec::new();
    }
    let Some(sequence) = n.as_sequence() else {
        c.add(pos(n.span()), format!("{what} must be a list"));
        return Vec::new();
    };
    sequence
        .iter()
        .filter_map(|item| {
            let s = scalar(item, &format!("each entry of {what}"), c)?;
            Some((s.as_str().to_owned(), pos(item.span())))
        })
        .collect()
}

/// A mapping of scalars.
pub(super) fn words(n: &Node, what: &str, c: &mut Complaints) -> BTreeMap<String, (String, Pos)> {
    let Some(m) = mapping(n, what, c) else { return BTreeMap::new() };
    entries(m)
        .filter_map(|(k, at, v)| {
            Some((k.to_owned(), (scalar(v, &format!("`{k}`"), c)?.as_str().to_owned(), at)))
        })
        .collect()
}
