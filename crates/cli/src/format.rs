//! How sizes, times and names look.

use std::fmt::{self, Display, Formatter, Write as _};

use jiff::Timestamp;
use jiff::tz::TimeZone;

/// A size in bytes with three significant digits and a unit: `4.38 KiB`, `64.0 MiB`, `512 B`.
pub(crate) struct Size(pub(crate) u64);

const UNITS: [&str; 7] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];

impl Display for Size {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let power = if self.0 == 0 { 0 } else { self.0.ilog2() / 10 };
        let unit = UNITS[power as usize];
        if power == 0 {
            return write!(f, "{} {unit}", self.0);
        }
        let value = self.0 as f64 / (1u64 << (10 * power)) as f64;
        let digits = match value {
            v if v >= 100.0 => 0,
            v if v >= 10.0 => 1,
            _ => 2,
        };
        write!(f, "{value:.digits$} {unit}")
    }
}

/// Reads a size: a number with an optional unit, `64M`, `1.5 GiB`, `4096`. Units are powers of 1024.
pub(crate) fn parse_size(text: &str) -> Result<u64, String> {
    let bad = || format!("'{text}' is not a size; write for instance 64M or 1G");
    let number_len = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(number_len);
    let unit = unit.trim().to_ascii_lowercase();
    let unit = unit.strip_suffix("ib").or(unit.strip_suffix('b')).unwrap_or(&unit);
    let power = match unit {
        "" => 0,
        "k" => 1,
        "m" => 2,
        "g" => 3,
        "t" => 4,
        "p" => 5,
        _ => return Err(bad()),
    };
    let number: f64 = number.parse().map_err(|_| bad())?;
    let bytes = number * 1024f64.powi(power);
    if bytes < u64::MAX as f64 { Ok(bytes as u64) } else { Err(bad()) }
}

/// A moment in local time, as ctime(3) prints it: `Sun Nov 22 11:02:28 2026`.
pub(crate) fn ctime(unix_seconds: u64) -> String {
    let at = i64::try_from(unix_seconds).ok().and_then(|s| Timestamp::from_second(s).ok());
    match at {
        Some(at) => at.to_zoned_datetime(TimeZone::system()).strftime("%a %b %e %H:%M:%S %Y").to_string(),
        // Beyond the year 9999.
        None => format!("@{unix_seconds}"),
    }
}

/// Bytes as text for people: UTF-8 stays, everything else and control characters are escaped.
pub(crate) struct Shown<'a>(pub(crate) &'a [u8]);

impl Display for Shown<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        for chunk in self.0.utf8_chunks() {
            for c in chunk.valid().chars() {
                match c {
                    '\\' => f.write_str("\\\\")?,
                    c if c.is_control() => write!(f, "{}", c.escape_default())?,
                    c => f.write_char(c)?,
                }
            }
            for byte in chunk.invalid() {
                write!(f, "\\x{byte:02x}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_three_digits() {
        for (bytes, text) in [
            (0, "0 B"),
            (512, "512 B"),
            (4096, "4.00 KiB"),
            (4485, "4.38 KiB"),
            (64 << 20, "64.0 MiB"),
            (128 << 10, "128 KiB"),
            (u64::MAX, "16.0 EiB"),
        ] {
            assert_eq!(Size(bytes).to_string(), text);
        }
    }

    #[test]
    fn sizes_are_read_with_and_without_units() {
        for (text, bytes) in [("4096", 4096), ("64M", 64 << 20), ("1.5 GiB", 3 << 29), ("2kb", 2048)] {
            assert_eq!(parse_size(text), Ok(bytes));
        }
        for text in ["", "M", "1X", "-1", "1e3", "99999999P", "1.2.3"] {
            assert!(parse_size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn names_are_escaped() {
        assert_eq!(Shown("grün\n\\".as_bytes()).to_string(), "grün\\n\\\\");
        assert_eq!(Shown(b"a\xff\x1b[").to_string(), "a\\xff\\u{1b}[");
    }

    #[test]
    fn times_out_of_range_are_numbers() {
        assert_eq!(ctime(u64::MAX), format!("@{}", u64::MAX));
    }
}
