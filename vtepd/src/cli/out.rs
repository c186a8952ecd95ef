//! Standard output that survives a closed pipe, and knows whether it is a terminal.

use std::io::{self, IsTerminal as _, Write};

/// Colours of the tables; nothing else is ever coloured.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Color {
    /// Default.
    Plain,
    /// Headers.
    Bold,
    /// All is well.
    Green,
    /// Wants a look.
    Yellow,
    /// Is wrong.
    Red,
    /// Of little weight.
    Dim,
}

impl Color {
    /// `text` with this colour, when `on`.
    pub fn paint(self, text: &str, on: bool) -> String {
        let code = match self {
            Self::Plain => return text.to_owned(),
            Self::Bold => "1",
            Self::Green => "32",
            Self::Yellow => "33",
            Self::Red => "31",
            Self::Dim => "2",
        };
        if on { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

/// How something may look.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Look {
    /// Escape codes are welcome.
    pub color: bool,
    /// Columns of the terminal; `None`: as wide as it needs.
    pub width: Option<usize>,
}

impl Look {
    /// Of standard output: colour only on a terminal and without `NO_COLOR`, width only of a terminal
    /// (or as `COLUMNS` says).
    pub fn of_stdout() -> Self {
        let stdout = io::stdout();
        let terminal = stdout.is_terminal();
        let columns = std::env::var("COLUMNS").ok().and_then(|c| c.parse().ok()).filter(|c| *c > 0);
        let width = columns.or_else(|| {
            let size = rustix::termios::tcgetwinsize(&stdout).ok()?;
            (terminal && size.ws_col > 0).then_some(usize::from(size.ws_col))
        });
        Self { color: terminal && color_wanted(), width }
    }

    /// Whether standard error may be coloured.
    pub fn stderr_color() -> bool {
        io::stderr().is_terminal() && color_wanted()
    }
}

fn color_wanted() -> bool {
    let set = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty());
    set("NO_COLOR").is_none() && set("TERM").is_none_or(|t| t != "dumb")
}

/// Writes to standard output.
///
/// # Errors
/// The reader went away ([`io::ErrorKind::BrokenPipe`]: a quiet end), or the disk is full.
pub fn print(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// Writes to standard error; there is nobody left to tell when that fails.
pub fn complain(text: &str) {
    let _ = io::stderr().lock().write_all(text.as_bytes());
}
