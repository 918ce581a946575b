//! What is said over the control socket: one JSON object per line.
//!
//! ```text
//! ► {"version":1,"do":"snapshot","source":"/home","path":"/snapshots/monday","read_only":true}
//! ◄ {"done":{"id":7,"path":"/snapshots/monday",…}}
//! ► {"version":1,"do":"delete-subvolume","path":"/nothing"}
//! ◄ {"error":{"errno":2,"why":"no such file or directory"}}
//! ```
//!
//! A request has the version of the protocol. It changes when a program of the one version would misunderstand the other; fields may be added
//! without. Paths are those inside the volume, from its root; a path that is not UTF-8 is an array of its bytes ([`Bytes`]).

use std::fmt;

use super::quota::{QuotaLimit, QuotaOwner};
use serde::de::{self, SeqAccess, Visitor};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The version of the protocol.
pub(crate) const VERSION: u32 = 1;
/// Longest request in bytes: two paths of the greatest length, byte by byte.
pub(crate) const REQUEST_BYTES_MAX: usize = 64 << 10;
/// Longest line of an answer in bytes: the status of a mount with everything that can be in it is a tenth of this.
pub(crate) const ANSWER_BYTES_MAX: usize = 4 << 20;

/// The name of the socket of the mount with this number ("0:45"), in the abstract namespace.
pub(crate) fn socket_name(number: &str) -> String {
    format!("frazil/{number}")
}

/// A line to the server.
#[derive(Serialize, Deserialize)]
pub(crate) struct Line {
    pub(crate) version: u32,
    #[serde(flatten)]
    pub(crate) request: Request,
}

/// What every line to the server has, whatever its version.
#[derive(Deserialize)]
pub(crate) struct AnyLine {
    pub(crate) version: u32,
}

/// What the server is asked to do.
#[derive(Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
#[serde(tag = "do", rename_all = "kebab-case")]
pub enum Request {
    /// Make everything durable that was done so far.
    Sync,
    /// Say how many requests have come: a [`Mark`], for `AwaitWrites`.
    MarkWrites,
    /// After the kernel was told to write back, and after a request to the filesystem that followed `MarkWrites`: wait until
    /// what was written back has arrived. `true`, or `false` if it has to be tried again.
    AwaitWrites {
        /// What `MarkWrites` said.
        mark: Mark,
        /// How long to wait at most.
        wait_ms: u64,
    },
    /// Say how it is: [`super::StatusReport`].
    Status,
    /// Say what the space is used for: [`super::UsageReport`].
    Usage,
    /// List the subvolumes: each is a part, a [`SubvolumeReport`].
    Subvolumes,
    /// Make an empty subvolume: [`SubvolumeReport`].
    CreateSubvolume {
        /// Where it is to be.
        path: Bytes,
        /// Permission bits that it does not get.
        umask: u16,
    },
    /// Delete a subvolume with everything in it.
    DeleteSubvolume {
        /// Where it is.
        path: Bytes,
    },
    /// Make a snapshot of a subvolume: [`SubvolumeReport`].
    Snapshot {
        /// Where the root of the subvolume is.
        source: Bytes,
        /// Where the snapshot is to be.
        path: Bytes,
        /// Whether it can be changed.
        read_only: bool,
    },
    /// List who uses how much: each owner is a part, a [`super::OwnerReport`].
    Quotas,
    /// Set limits; those not given stay as they are.
    SetQuota {
        /// Whose kind.
        owner: QuotaOwner,
        /// Which user, group or project.
        id: u32,
        /// Limits of space, in bytes.
        space: Option<QuotaLimit>,
        /// Limits of inodes.
        inodes: Option<QuotaLimit>,
    },
    /// Freeze the volume, or join those who have; answered when it is frozen: [`HoldReport`].
    Freeze {
        /// For whom, as it is shown.
        who: String,
        /// Whether the hold ends with this connection.
        bound: bool,
        /// Whether others may hold it already.
        share: bool,
        /// How long it is held at most, from when it is frozen.
        hold_ms: Option<u64>,
        /// How long it may take to be frozen.
        drain_ms: Option<u64>,
    },
    /// End a hold.
    Thaw {
        /// Which: the token of a [`HoldReport`]; without, the only one that was made by a connection that did not bind it.
        token: Option<String>,
    },
    /// End all holds, whoever has them.
    ThawAll,
    /// The mount was made read-only, or writable again: answered when the volume is that, too.
    FollowMount,
    /// Stop the volume for good: nothing is written after the answer.
    Shutdown {
        /// What is made durable before.
        mode: ShutdownMode,
    },
}

/// What a shutdown makes durable.
#[derive(Serialize, Deserialize, Clone, Copy, PartialEq, Eq, Debug)]
#[serde(rename_all = "lowercase")]
pub enum ShutdownMode {
    /// Everything that was done.
    Default,
    /// What the journal has.
    LogFlush,
    /// Nothing, as a power cut.
    NoLogFlush,
}

/// A hold on a frozen volume.
#[derive(Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
pub struct HoldReport {
    /// By which it can be ended.
    pub token: String,
}

/// How many requests have come, and how many are being answered.
#[derive(Serialize, Deserialize, Clone, Copy, PartialEq, Eq, Debug)]
pub struct Mark {
    /// Reads and writes so far.
    pub begun: u64,
    /// Requests that are not answered yet.
    pub in_flight: u64,
}

/// A line from the server: a part of the answer, or its end.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Answer<P, D> {
    Part(P),
    Done(D),
    Error(Failure),
}

/// Why it could not be done.
#[derive(Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
pub struct Failure {
    /// Error number of Linux on this machine.
    pub errno: i32,
    /// One line.
    pub why: String,
}

impl Failure {
    pub(crate) fn new(errno: rustix::io::Errno, why: impl fmt::Display) -> Failure {
        Failure { errno: errno.raw_os_error(), why: why.to_string() }
    }
}

impl From<frazil_posix::Error> for Failure {
    fn from(error: frazil_posix::Error) -> Failure {
        Failure { errno: crate::errno::Errno::from(&error).code(), why: error.to_string() }
    }
}

/// A subvolume.
#[derive(Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
pub struct SubvolumeReport {
    /// Its id.
    pub id: u32,
    /// Where it is in the volume.
    pub path: Bytes,
    /// The subvolume in which its name is; none for the root.
    pub parent: Option<u32>,
    /// Whether it was made as a snapshot.
    pub is_snapshot: bool,
    /// The subvolume it is a snapshot of, if that is still there.
    pub snapshot_of: Option<u32>,
    /// Whether it cannot be changed.
    pub read_only: bool,
    /// When it was made, in nanoseconds since 1970.
    pub created_ns: i64,
}

/// Bytes that are usually text. In JSON a string if they are UTF-8, else an array of numbers.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Bytes(pub Vec<u8>);

impl Serialize for Bytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match std::str::from_utf8(&self.0) {
            Ok(text) => serializer.serialize_str(text),
            Err(_) => serializer.collect_seq(&self.0),
        }
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Bytes, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = Bytes;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string or an array of bytes")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Bytes, E> {
                Ok(Bytes(text.as_bytes().to_vec()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Bytes, A::Error> {
                let mut bytes = Vec::new();
                while let Some(byte) = seq.next_element()? {
                    bytes.push(byte);
                }
                Ok(Bytes(bytes))
            }
        }
        deserializer.deserialize_any(Either)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_lines_that_people_can_write() {
        let line = r#"{"version":1,"do":"snapshot","source":"/home","path":[47,255],"read_only":true}"#;
        let request = Request::Snapshot {
            source: Bytes(b"/home".to_vec()),
            path: Bytes(b"/\xff".to_vec()),
            read_only: true,
        };
        assert_eq!(serde_json::from_str::<Line>(line).unwrap().request, request);
        assert_eq!(serde_json::to_string(&Line { version: 1, request }).unwrap(), line);
        assert!(serde_json::from_str::<Line>(r#"{"version":1,"do":"fly"}"#).is_err());
        assert_eq!(serde_json::from_str::<AnyLine>(r#"{"version":9,"do":"fly"}"#).unwrap().version, 9);
    }

    #[test]
    fn the_longest_paths_fit() {
        let path = || Bytes(vec![0xff; 4096]);
        let request = Request::Snapshot { source: path(), path: path(), read_only: true };
        assert!(
            serde_json::to_string(&Line { version: VERSION, request }).unwrap().len() < REQUEST_BYTES_MAX
        );
    }
}
