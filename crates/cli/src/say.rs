//! What is said on standard error: one line each, beginning with `error:`, `warning:` or `note:`.
//!
//! The layers below report through `tracing`; here their events become such lines too. By default only warnings are shown: an
//! *error* event of a lower layer comes with an error that the command itself reports, so showing it as well would say
//! everything twice. `-v` shows all errors and what is going on, `-vv` and `-vvv` more of it.
//!
//! A process that serves a mount is asked by the kernel, not by a person, so errors of lower layers are all there is to say; its lines
//! also go to the system log, and to a file if one is named.

use std::fmt::{self, Display, Write as _};
use std::fs::File;
use std::io::{self, Write as _};
use std::os::unix::net::UnixDatagram;
use std::path::Path;

use parking_lot::Mutex;

use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer as _;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt as _;

/// Something failed.
pub(crate) fn error(what: impl Display) {
    line("error", what);
}

/// Something is odd, and the result may not be what is expected.
pub(crate) fn warning(what: impl Display) {
    line("warning", what);
}

/// Something worth knowing.
pub(crate) fn note(what: impl Display) {
    line("note", what);
}

fn line(kind: &str, what: impl Display) {
    let mut text = format!("{kind}: ");
    // Text from a volume must not break the line, or command the terminal.
    if write!(OneLine(&mut text), "{what}").is_ok() {
        text.push('\n');
        // There is nobody left to tell if this fails.
        let _ = Lines.write_all(text.as_bytes());
    }
}

/// Where lines go beside standard error.
static ALSO: Mutex<Also> = Mutex::new(Also { file: None, system: None });

struct Also {
    file: Option<File>,
    system: Option<UnixDatagram>,
}

/// Appends lines to a file from now on.
pub(crate) fn log_to_file(path: &Path) -> io::Result<()> {
    ALSO.lock().file = Some(File::options().append(true).create(true).open(path)?);
    Ok(())
}

/// Sends lines to the system log from now on, if there is one.
pub(crate) fn log_to_system() {
    let connected = UnixDatagram::unbound().and_then(|socket| socket.connect("/dev/log").map(|()| socket));
    ALSO.lock().system = connected.ok();
}

/// Takes whole lines to wherever they go.
struct Lines;

impl io::Write for Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let also = &mut *ALSO.lock();
        if let Some(file) = &mut also.file {
            // Standard error still has the line.
            let _ = file.write_all(line);
        }
        if let Some(system) = &also.system {
            let priority = if line.starts_with(b"error") { SYSLOG_ERROR } else { SYSLOG_NOTICE };
            let head = format!("<{priority}>frazil[{}]: ", std::process::id());
            let _ = system.send(&[head.as_bytes(), line.trim_ascii_end()].concat());
        }
        io::stderr().write_all(line)?;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

/// Facility "daemon", severity "error" (RFC 3164).
const SYSLOG_ERROR: u8 = 3 << 3 | 3;
/// Facility "daemon", severity "notice".
const SYSLOG_NOTICE: u8 = 3 << 3 | 5;

/// Passes text on with control characters escaped.
struct OneLine<'w, W>(&'w mut W);

impl<W: fmt::Write> fmt::Write for OneLine<'_, W> {
    fn write_str(&mut self, s: &str) -> fmt::Result {
        for c in s.chars() {
            if c.is_control() {
                write!(self.0, "{}", c.escape_default())?;
            } else {
                self.0.write_char(c)?;
            }
        }
        Ok(())
    }
}

/// Shows the events of all layers, as many as `verbose` asks for; without it, `with_errors` says whether errors are shown.
pub(crate) fn start_log(verbose: u8, with_errors: bool) {
    let most = match verbose {
        0 => Level::WARN,
        1 => Level::INFO,
        2 => Level::DEBUG,
        _ => Level::TRACE,
    };
    let wanted = filter_fn(move |event| {
        *event.level() <= most && (verbose > 0 || with_errors || *event.level() != Level::ERROR)
    });
    let lines =
        tracing_subscriber::fmt::layer().event_format(AsLine).with_writer(|| Lines).with_filter(wanted);
    // Fails only if there is a log already, which then does as well.
    let _ = tracing_subscriber::registry().with(lines).try_init();
}

/// An event as one line in the form of this module.
struct AsLine;

impl<S, N> FormatEvent<S, N> for AsLine
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let kind = match *event.metadata().level() {
            Level::ERROR => "error",
            Level::WARN => "warning",
            Level::INFO => "note",
            Level::DEBUG => "debug",
            Level::TRACE => "trace",
        };
        write!(writer, "{kind}: ")?;
        let mut text = String::new();
        context.field_format().format_fields(Writer::new(&mut text), event)?;
        OneLine(&mut writer).write_str(&text)?;
        writeln!(writer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_stays_on_its_line() {
        let mut text = String::new();
        write!(OneLine(&mut text), "a\nb\u{1b}[2J ü").unwrap();
        assert_eq!(text, "a\\nb\\u{1b}[2J ü");
    }
}
