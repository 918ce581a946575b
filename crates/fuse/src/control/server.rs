//! The side that answers: accepting connections, looking who it is, and ending in time.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rustix::io::Errno as Code;
use rustix::net::sockopt::socket_peercred;
use serde::Serialize;
use serde_json::Value;

use super::protocol::{Answer, AnyLine, Failure, Line, REQUEST_BYTES_MAX, Request, VERSION, socket_name};

/// Most connections at a time. Each is a thread.
const CONNECTIONS_MAX: usize = 64;
/// How long a connection may be silent that holds nothing, and how long it may take to read an answer.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long the server of a mount that had the same number may take to stop listening, and how often is looked.
const PREDECESSOR_MAX: Duration = Duration::from_secs(2);
const PREDECESSOR_PAUSE: Duration = Duration::from_millis(2);
/// Pause after a connection could not be accepted.
const PAUSE: Duration = Duration::from_millis(100);

/// Who asks, as the kernel vouches for it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Peer {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) pid: i32,
}

/// Takes a part of an answer. An error: the client is gone.
pub(crate) type TakePart<'a> = dyn FnMut(Value) -> io::Result<()> + 'a;

/// What a mount does when it is asked to.
pub(crate) trait Commands: Send + Sync + 'static {
    /// What a connection holds; dropping it gives that back.
    type Held: Default + Send;

    /// Does what is asked for by whoever is at the other end of the stream. May wait.
    fn run(
        &self,
        request: Request,
        from: (Peer, &UnixStream),
        held: &mut Self::Held,
        part: &mut TakePart<'_>,
    ) -> Result<Value, Failure>;

    /// Whether the connection holds something, so that it may be silent for long.
    fn holds(held: &Self::Held) -> bool;
}

/// A socket at which a mount can be controlled.
pub(crate) struct Server {
    /// Until it has ended: then the next mount with this number may listen.
    listener: Mutex<Option<Arc<UnixListener>>>,
    shared: Arc<Shared>,
    accepting: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Default)]
struct Shared {
    ended: AtomicBool,
    connections: Mutex<Vec<Connection>>,
}

struct Connection {
    stream: UnixStream,
    thread: JoinHandle<()>,
}

impl Server {
    /// Listens for commands to the mount with this number.
    pub(crate) fn start<C: Commands>(number: &str, commands: C) -> io::Result<Server> {
        let address = SocketAddr::from_abstract_name(socket_name(number))?;
        let listener = Arc::new(bind(&address)?);
        let shared = Arc::new(Shared::default());
        let (accepts_at, commands, accepts_for) = (listener.clone(), Arc::new(commands), shared.clone());
        let accepting = thread::Builder::new()
            .name("frazil-control".into())
            .spawn(move || accept(&accepts_at, &accepts_for, &commands))?;
        let listener = Mutex::new(Some(listener));
        Ok(Server { listener, shared, accepting: Mutex::new(Some(accepting)) })
    }

    /// Hangs up, and waits until nobody uses the mount any more.
    pub(crate) fn end(&self) {
        self.shared.ended.store(true, Ordering::SeqCst);
        let listener = self.listener.lock().take();
        if let Some(listener) = &listener {
            // Wakes who accepts; it cannot fail at a socket that listens.
            let _ = rustix::net::shutdown(&**listener, rustix::net::Shutdown::Both);
        }
        if let Some(accepting) = self.accepting.lock().take() {
            let _ = accepting.join();
        }
        let connections = std::mem::take(&mut *self.shared.connections.lock());
        for connection in &connections {
            connection.hang_up();
        }
        for connection in connections {
            let _ = connection.thread.join();
        }
    }
}

/// Listens. The kernel gives the number of a mount to another one as soon as it is unmounted, when its server may still be on its way out.
fn bind(address: &SocketAddr) -> io::Result<UnixListener> {
    let deadline = Instant::now() + PREDECESSOR_MAX;
    loop {
        match UnixListener::bind_addr(address) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && Instant::now() < deadline => {
                thread::sleep(PREDECESSOR_PAUSE);
            }
            done => return done,
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.end();
    }
}

impl Connection {
    fn hang_up(&self) {
        // The client may have done so already.
        let _ = self.stream.shutdown(std::net::Shutdown::Both);
    }
}

fn accept<C: Commands>(listener: &UnixListener, shared: &Shared, commands: &Arc<C>) {
    loop {
        let accepted = listener.accept();
        if shared.ended.load(Ordering::SeqCst) {
            return;
        }
        let started = accepted.and_then(|(stream, _)| connect(stream, shared, commands));
        if let Err(error) = started {
            tracing::warn!("a connection to control the mount failed: {error}");
            thread::sleep(PAUSE);
        }
    }
}

/// Starts a thread for a connection, if it is one that may ask.
fn connect<C: Commands>(stream: UnixStream, shared: &Shared, commands: &Arc<C>) -> io::Result<()> {
    let credentials = socket_peercred(&stream)?;
    let peer = Peer {
        uid: credentials.uid.as_raw(),
        gid: credentials.gid.as_raw(),
        pid: credentials.pid.as_raw_pid(),
    };
    stream.set_write_timeout(Some(PATIENCE))?;
    if peer.uid != 0 && peer.uid != rustix::process::geteuid().as_raw() {
        return refuse(&stream, Code::PERM, "only root and the user who mounted it may control a mount");
    }
    let mut connections = shared.connections.lock();
    connections.retain(|connection| !connection.thread.is_finished());
    if connections.len() >= CONNECTIONS_MAX {
        return refuse(&stream, Code::BUSY, "too many commands at a time");
    }
    let (talking, commands) = (stream.try_clone()?, Arc::clone(commands));
    let thread = thread::Builder::new().name("frazil-command".into()).spawn(move || {
        // However it ends, the connection is over, and what it held is given back.
        let _ = converse(&talking, peer, &*commands);
        let _ = talking.shutdown(std::net::Shutdown::Both);
    })?;
    connections.push(Connection { stream, thread });
    Ok(())
}

fn refuse(stream: &UnixStream, errno: Code, why: &str) -> io::Result<()> {
    // If it does not want to hear why, that is no reason to stop.
    let _ = say(stream, &Answer::<(), ()>::Error(Failure::new(errno, why)));
    Ok(())
}

/// Answers the requests of one connection until it ends.
fn converse<C: Commands>(stream: &UnixStream, peer: Peer, commands: &C) -> io::Result<()> {
    let mut held = C::Held::default();
    let mut reader = BufReader::new(stream);
    loop {
        stream.set_read_timeout((!C::holds(&held)).then_some(PATIENCE))?;
        let mut line = Vec::new();
        let read = reader.by_ref().take(REQUEST_BYTES_MAX as u64).read_until(b'\n', &mut line)?;
        if read == 0 {
            return Ok(());
        }
        if !line.ends_with(b"\n") {
            return refuse(stream, Code::MSGSIZE, "the request is too long, or not a whole line");
        }
        let done = decode(&line).and_then(|request| {
            let mut part = |value| say(stream, &Answer::<Value, ()>::Part(value));
            commands.run(request, (peer, stream), &mut held, &mut part)
        });
        match done {
            Ok(done) => say(stream, &Answer::<(), Value>::Done(done))?,
            Err(failure) => say(stream, &Answer::<(), ()>::Error(failure))?,
        }
    }
}

fn decode(line: &[u8]) -> Result<Request, Failure> {
    let invalid =
        |error: serde_json::Error| Failure::new(Code::INVAL, format_args!("not a request: {error}"));
    let AnyLine { version } = serde_json::from_slice(line).map_err(invalid)?;
    if version != VERSION {
        let why = format!(
            "the mount is served by frazil {} (protocol {VERSION}), and this is another version (protocol {version})",
            env!("CARGO_PKG_VERSION")
        );
        return Err(Failure::new(Code::PROTONOSUPPORT, why));
    }
    serde_json::from_slice::<Line>(line).map(|line| line.request).map_err(invalid)
}

fn say(mut stream: &UnixStream, answer: &impl Serialize) -> io::Result<()> {
    let mut line = serde_json::to_vec(answer)?;
    line.push(b'\n');
    stream.write_all(&line)
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Sender, channel};

    use super::*;

    /// Answers `sync` with nothing, and tells when something held is given back.
    struct Fake(Mutex<Sender<&'static str>>);

    #[derive(Default)]
    struct Held(Option<Sender<&'static str>>);

    impl Drop for Held {
        fn drop(&mut self) {
            let _ = self.0.take().map(|sender| sender.send("given back"));
        }
    }

    impl Commands for Fake {
        type Held = Held;

        fn run(
            &self,
            request: Request,
            _: (Peer, &UnixStream),
            held: &mut Held,
            part: &mut TakePart<'_>,
        ) -> Result<Value, Failure> {
            match request {
                Request::Sync => Ok(Value::Null),
                Request::Subvolumes => {
                    (0..3).try_for_each(|i| part(Value::from(i))).map_err(|e| Failure::new(Code::IO, e))?;
                    Ok(Value::from("end"))
                }
                _ => {
                    held.0 = Some(self.0.lock().clone());
                    Err(Failure::new(Code::NOSYS, "held"))
                }
            }
        }

        fn holds(held: &Held) -> bool {
            held.0.is_some()
        }
    }

    fn start(name: &str) -> (Server, String, std::sync::mpsc::Receiver<&'static str>) {
        let (sender, receiver) = channel();
        // Names are shared by all that run on this machine.
        let name = format!("test/{}/{name}", std::process::id());
        (Server::start(&name, Fake(Mutex::new(sender))).unwrap(), name, receiver)
    }

    #[test]
    fn the_next_mount_with_the_same_number_listens() {
        let (server, name, _receiver) = start("again");
        std::thread::scope(|scope| {
            scope.spawn(|| {
                std::thread::sleep(Duration::from_millis(50));
                server.end();
            });
            // Not refused, though nobody drops the first one.
            let (next, _, _receiver) = start("again");
            assert_eq!(ask(&mut connect(&name), SYNC), r#"{"done":null}"#);
            drop(next);
        });
    }

    fn connect(name: &str) -> BufReader<UnixStream> {
        let address = SocketAddr::from_abstract_name(socket_name(name)).unwrap();
        BufReader::new(UnixStream::connect_addr(&address).unwrap())
    }

    fn ask(stream: &mut BufReader<UnixStream>, line: &str) -> String {
        stream.get_mut().write_all(line.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_line(&mut answer).unwrap();
        answer.trim_end().to_owned()
    }

    const SYNC: &str = "{\"version\":1,\"do\":\"sync\"}\n";
    const HOLD: &str = "{\"version\":1,\"do\":\"status\"}\n";

    #[test]
    fn requests_are_answered_line_by_line() {
        let (_server, name, _) = start("lines");
        let mut client = connect(&name);
        assert_eq!(ask(&mut client, SYNC), r#"{"done":null}"#);
        assert_eq!(ask(&mut client, "{\"version\":1,\"do\":\"subvolumes\"}\n"), r#"{"part":0}"#);
        for rest in [r#"{"part":1}"#, r#"{"part":2}"#, r#"{"done":"end"}"#] {
            assert_eq!(ask(&mut client, ""), rest);
        }
        assert!(ask(&mut client, "nonsense\n").contains("not a request"));
        assert!(
            ask(&mut client, "{\"version\":2,\"do\":\"sync\"}\n").contains("another version (protocol 2)")
        );
        assert_eq!(ask(&mut client, SYNC), r#"{"done":null}"#);
    }

    #[test]
    fn a_request_without_end_is_refused() {
        let (_server, name, _) = start("endless");
        let mut client = connect(&name);
        let told = ask(&mut client, &"x".repeat(REQUEST_BYTES_MAX + 1));
        assert!(told.contains("too long"), "{told}");
    }

    #[test]
    fn what_a_connection_holds_goes_with_it() {
        let (server, name, given_back) = start("held");
        for end in [true, false] {
            let mut client = connect(&name);
            assert!(ask(&mut client, HOLD).contains("held"));
            assert!(given_back.try_recv().is_err());
            if end {
                drop(client);
                assert_eq!(given_back.recv().unwrap(), "given back");
            } else {
                server.end();
                assert_eq!(given_back.try_recv().unwrap(), "given back", "the end waits for it");
                assert_eq!(ask(&mut client, ""), "", "the server hung up");
            }
        }
    }

    #[test]
    fn connections_are_bounded() {
        let (_server, name, _) = start("many");
        let mut clients: Vec<_> = (0..CONNECTIONS_MAX).map(|_| connect(&name)).collect();
        clients.iter_mut().for_each(|client| assert_eq!(ask(client, SYNC), r#"{"done":null}"#));
        assert!(ask(&mut connect(&name), "").contains("too many"));
        assert_eq!(ask(&mut clients[0], SYNC), r#"{"done":null}"#);
        clients.clear();
        let mut answered = String::new();
        while !answered.contains("done") {
            let mut client = connect(&name);
            // The server hangs up before it reads, if there are still too many.
            let _ = client.get_mut().write_all(SYNC.as_bytes());
            answered.clear();
            let _ = client.read_line(&mut answered);
        }
    }

    #[test]
    fn a_name_that_is_taken_is_an_error() {
        let (server, name, _) = start("taken");
        let again = Server::start(&name, Fake(Mutex::new(channel().0)));
        assert_eq!(again.err().unwrap().kind(), io::ErrorKind::AddrInUse);
        drop(server);
        drop(Server::start(&name, Fake(Mutex::new(channel().0))).unwrap());
    }
}
