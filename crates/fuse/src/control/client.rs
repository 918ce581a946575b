//! The side that asks.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixStream};
use std::thread;
use std::time::{Duration, Instant};

use frazil_device::mounts::{self, Mount};
use rustix::net::sockopt::socket_peercred;
use serde::Serialize;
use serde::de::{DeserializeOwned, IgnoredAny};

use super::protocol::{ANSWER_BYTES_MAX, Answer, Failure, Line, Request, VERSION, socket_name};

/// Why a request was not answered with success.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// Nobody listens: the process is being started or ended, is of an older version, or could not make its socket.
    #[error(
        "the mount at {0} does not listen (its process is starting or ending, or lies in another network namespace)"
    )]
    NotListening(String),
    /// Somebody listens who is neither root nor the user who mounted.
    #[error("whoever answers for the mount at {0} is user {1}, who did not mount it")]
    Stranger(String, u32),
    /// The server could not do it.
    #[error("{}", .0.why)]
    Failed(Failure),
    /// The server is gone: most likely the volume was unmounted.
    #[error("the mount at {0} has ended")]
    Ended(String),
    /// The connection does not work.
    #[error("cannot talk to the mount at {0}: {1}")]
    Io(String, io::Error),
    /// The answer makes no sense.
    #[error("the mount at {0} answers in a way this program does not understand ({1})")]
    Answer(String, String),
}

impl CallError {
    /// The error number of a request that failed.
    pub fn errno(&self) -> Option<i32> {
        match self {
            CallError::Failed(failure) => Some(failure.errno),
            _ => None,
        }
    }
}

/// How long a mount may take from its place in the mount table to its socket.
const START_MAX: Duration = Duration::from_secs(2);
/// Pause between attempts meanwhile.
const PAUSE: Duration = Duration::from_millis(10);

/// Whether the mount is still in the table.
fn is_there(mount: &Mount) -> bool {
    mounts::at(&mount.mount_point).is_some_and(|at| at.number == mount.number)
}

/// A connection to the process that serves a mount.
#[derive(Debug)]
pub struct Client {
    stream: BufReader<UnixStream>,
    /// For messages.
    at: String,
}

impl Client {
    /// Connects to the process that serves a mount.
    ///
    /// # Errors
    /// If there is none, or it is a stranger's.
    pub fn connect(mount: &Mount) -> Result<Client, CallError> {
        let at = mount.mount_point.display().to_string();
        let address = SocketAddr::from_abstract_name(socket_name(&mount.number));
        let address = address.map_err(|e| CallError::Io(at.clone(), e))?;
        let deadline = Instant::now() + START_MAX;
        let stream = loop {
            match UnixStream::connect_addr(&address) {
                Ok(stream) => break stream,
                Err(error) if error.kind() != io::ErrorKind::ConnectionRefused => {
                    return Err(CallError::Io(at, error));
                }
                // It is in the mount table before it can be asked.
                Err(_) if Instant::now() < deadline && is_there(mount) => thread::sleep(PAUSE),
                Err(_) => return Err(CallError::NotListening(at)),
            }
        };
        let peer = socket_peercred(&stream).map_err(|e| CallError::Io(at.clone(), e.into()))?.uid;
        if !peer.is_root() && mount.user != Some(peer.as_raw()) {
            return Err(CallError::Stranger(at, peer.as_raw()));
        }
        Ok(Client { stream: BufReader::new(stream), at })
    }

    /// Asks, and waits for the answer.
    ///
    /// # Errors
    /// If it could not be done, or the connection broke.
    pub fn ask<D: DeserializeOwned>(&mut self, request: &Request) -> Result<D, CallError> {
        self.ask_in_parts::<IgnoredAny, D>(request, |_| ())
    }

    /// Asks for something whose answer comes in parts, each of which `take` gets.
    ///
    /// # Errors
    /// If it could not be done, or the connection broke.
    pub fn ask_in_parts<P: DeserializeOwned, D: DeserializeOwned>(
        &mut self,
        request: &Request,
        mut take: impl FnMut(P),
    ) -> Result<D, CallError> {
        self.send(&Line { version: VERSION, request: request.clone() })?;
        loop {
            match self.receive::<P, D>()? {
                Answer::Part(part) => take(part),
                Answer::Done(done) => return Ok(done),
                Answer::Error(failure) => return Err(CallError::Failed(failure)),
            }
        }
    }

    fn send(&mut self, line: &impl Serialize) -> Result<(), CallError> {
        let mut bytes = serde_json::to_vec(line).map_err(|e| self.io(e.into()))?;
        bytes.push(b'\n');
        match self.stream.get_mut().write_all(&bytes) {
            // What it said before it hung up can still be read, and says why.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            sent => sent.map_err(|e| self.io(e)),
        }
    }

    fn receive<P: DeserializeOwned, D: DeserializeOwned>(&mut self) -> Result<Answer<P, D>, CallError> {
        let mut line = Vec::new();
        let most = ANSWER_BYTES_MAX as u64;
        match self.stream.by_ref().take(most).read_until(b'\n', &mut line) {
            Ok(0) => return Err(CallError::Ended(self.at.clone())),
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {
                return Err(CallError::Ended(self.at.clone()));
            }
            Err(error) => return Err(self.io(error)),
            Ok(_) => {}
        }
        serde_json::from_slice(&line).map_err(|e| CallError::Answer(self.at.clone(), e.to_string()))
    }

    fn io(&self, error: io::Error) -> CallError {
        CallError::Io(self.at.clone(), error)
    }
}
