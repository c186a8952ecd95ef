//! Configuration errors: collected, placed, rendered.

use annotate_snippets::renderer::DecorStyle;
use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};
use std::fmt::{self, Write as _};
use std::ops::Range;
use std::path::{Path, PathBuf};

/// Byte range in the configuration text.
pub type Place = Range<usize>;

/// One error in a configuration file.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Problem {
    /// Dotted key, such as `vni.ports`; empty for a syntax error.
    pub key: String,
    /// What is wrong, lower case, no trailing dot.
    pub what: String,
    /// Where.
    pub at: Place,
    /// Text below the marked value.
    pub label: String,
    /// A second place that the error is about, with its text.
    pub also: Option<(Place, String)>,
    /// The way out.
    pub help: Option<String>,
}

impl Problem {
    /// A problem with a key and a place.
    pub fn new(key: impl Into<String>, at: Place, what: impl Into<String>) -> Self {
        Self { key: key.into(), what: what.into(), at, label: String::new(), also: None, help: None }
    }
    /// Text below the marked value.
    pub fn label(mut self, text: impl Into<String>) -> Self {
        self.label = text.into();
        self
    }
    /// A second place.
    pub fn also(mut self, at: Place, text: impl Into<String>) -> Self {
        self.also = Some((at, text.into()));
        self
    }
    /// The way out.
    pub fn help(mut self, text: impl Into<String>) -> Self {
        self.help = Some(text.into());
        self
    }
    /// Title line: key and text.
    pub fn title(&self) -> String {
        if self.key.is_empty() { self.what.clone() } else { format!("`{}`: {}", self.key, self.what) }
    }
}

/// All errors of one file, in the order of their places.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Report {
    /// The file.
    pub file: PathBuf,
    /// Its text; empty if it could not be read.
    pub text: String,
    /// Errors. Never empty.
    pub problems: Vec<Problem>,
}

impl Report {
    /// A file that could not be read at all.
    pub fn unreadable(file: &Path, why: &str, help: &str) -> Self {
        let what = format!("cannot read `{}`: {why}", file.display());
        let problem = Problem::new("", 0..0, what).help(help);
        Self { file: file.to_owned(), text: String::new(), problems: vec![problem] }
    }

    /// Line and column, both from 1, of an error.
    pub fn line_column(&self, problem: &Problem) -> (usize, usize) {
        let before = self.text.get(..problem.at.start.min(self.text.len())).unwrap_or("");
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or("").chars().count() + 1;
        (line, column)
    }

    /// As a person reads it, with the lines of the file; coloured if `color`.
    pub fn render(&self, color: bool) -> String {
        let renderer = if color { Renderer::styled() } else { Renderer::plain() };
        let renderer = renderer.decor_style(DecorStyle::Unicode);
        let file = self.file.display().to_string();
        let mut out = String::new();
        for p in &self.problems {
            out.push_str(&renderer.render(&self.groups(p, &file)));
            out.push_str("\n\n");
        }
        let n = self.problems.len();
        let plural = if n == 1 { "" } else { "s" };
        let _ = writeln!(out, "{n} error{plural} in `{file}`; nothing was touched");
        out
    }

    fn groups<'a>(&'a self, p: &'a Problem, file: &'a str) -> Vec<Group<'a>> {
        let title = Level::ERROR.primary_title(p.title());
        let mut group = if self.text.is_empty() {
            Group::with_title(title)
        } else {
            let len = self.text.len();
            let clamp = |r: &Place| r.start.min(len)..r.end.min(len);
            let mut main = AnnotationKind::Primary.span(clamp(&p.at));
            if !p.label.is_empty() {
                main = main.label(p.label.as_str());
            }
            let mut snippet = Snippet::source(self.text.as_str()).path(file).annotation(main);
            if let Some((at, text)) = &p.also {
                snippet = snippet.annotation(AnnotationKind::Context.span(clamp(at)).label(text.as_str()));
            }
            title.element(snippet)
        };
        if let Some(help) = &p.help {
            group = group.element(Level::HELP.message(help.as_str()));
        }
        vec![group]
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(false))
    }
}

impl std::error::Error for Report {}
