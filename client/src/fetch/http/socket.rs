//! Sockets whose waits end: at their time limit, when patience runs out, and when the caller cancels.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs as _};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use ureq::Error;
use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::time::Duration as Bound;
use ureq::unversioned::transport::{
    Buffers, ConnectionDetails, Connector, Either, LazyBuffers, NextTimeout, Transport,
};

use super::pace::Patience;

/// How many addresses of a name are tried; as many as there is room for.
const MOST_ADDRESSES: usize = 16;

/// Resolves names by the system.
#[derive(Debug)]
pub(super) struct Names(pub(super) Patience);

impl Resolver for Names {
    fn resolve(&self, uri: &Uri, _: &Config, timeout: NextTimeout) -> Result<ResolvedSocketAddrs, Error> {
        let scheme = uri.scheme().zip(uri.authority());
        let host = scheme.and_then(|(scheme, authority)| DefaultResolver::host_and_port(scheme, authority));
        let host = host.ok_or_else(|| Error::BadUri(String::new()))?;
        let mut addresses = self.empty();
        if let Found::Names(found) =
            wait_for(&self.0, &timeout, Box::new(move || Ok(Found::Names(host.to_socket_addrs()?))))?
        {
            for address in found.take(MOST_ADDRESSES) {
                addresses.push(address);
            }
        }
        if addresses.is_empty() { Err(Error::HostNotFound) } else { Ok(addresses) }
    }
}

/// Connects, unless an earlier connector did.
#[derive(Debug)]
pub(super) struct Dialer(pub(super) Patience);

impl<In: Transport> Connector<In> for Dialer {
    type Out = Either<In, Socket>;

    fn connect(&self, details: &ConnectionDetails<'_>, chained: Option<In>) -> Result<Option<Self::Out>, Error> {
        if chained.is_some() {
            return Ok(chained.map(Either::A));
        }
        let addresses: Vec<SocketAddr> = details.addrs.iter().copied().collect();
        let limit = left(&details.timeout);
        let found = wait_for(&self.0, &details.timeout, Box::new(move || dial(&addresses, limit).map(Found::Stream)))?;
        let Found::Stream(stream) = found else { return Err(Error::ConnectionFailed) };
        stream.set_nodelay(details.config.no_delay())?;
        let buffers = LazyBuffers::new(details.config.input_buffer_size(), details.config.output_buffer_size());
        Ok(Some(Either::B(Socket { stream, buffers, patience: self.0.clone(), limits: [None; 2] })))
    }
}

fn left(timeout: &NextTimeout) -> Option<Duration> {
    match timeout.after {
        Bound::Exact(time) => Some(time),
        Bound::NotHappening => None,
    }
}

/// What a thread finds. One type, so that the code that waits for it is made once.
enum Found {
    Names(std::vec::IntoIter<SocketAddr>),
    Stream(TcpStream),
}

/// Does in a thread what cannot be interrupted, and waits no longer than it may. The thread ends by itself.
fn wait_for(
    patience: &Patience,
    timeout: &NextTimeout,
    work: Box<dyn FnOnce() -> io::Result<Found> + Send>,
) -> Result<Found, Error> {
    let started = Instant::now();
    let (send, receive) = mpsc::sync_channel(1);
    // Where there can be no other thread, that is an error and no panic.
    thread::Builder::new().spawn(move || send.send(work()))?;
    loop {
        match receive.recv_timeout(patience.slice(timeout, started)?) {
            Ok(result) => return Ok(result?),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return Err(Error::ConnectionFailed),
        }
    }
}

/// Connects to the first address that answers. Each has half of the time that is left, and the last one all of it.
fn dial(addresses: &[SocketAddr], limit: Option<Duration>) -> io::Result<TcpStream> {
    let started = Instant::now();
    let mut result = Err(io::ErrorKind::ConnectionRefused.into());
    for (index, address) in addresses.iter().enumerate() {
        let is_last = index + 1 == addresses.len();
        let limit = limit.map(|limit| limit.saturating_sub(started.elapsed()) / if is_last { 1 } else { 2 });
        result = match limit {
            None => TcpStream::connect(address),
            Some(limit) if limit.is_zero() => break,
            Some(limit) => TcpStream::connect_timeout(address, limit),
        };
        if result.is_ok() {
            break;
        }
    }
    result
}

/// A connection.
#[derive(Debug)]
pub(super) struct Socket {
    stream: TcpStream,
    buffers: LazyBuffers,
    patience: Patience,
    /// The limits that are set for reading and for writing.
    limits: [Option<Duration>; 2],
}

impl Socket {
    /// Sets the time limit of the next call, if it changed.
    fn limit(&mut self, timeout: &NextTimeout, started: Instant, is_write: bool) -> Result<(), Error> {
        let slice = Some(self.patience.slice(timeout, started)?);
        let [reading, writing] = &mut self.limits;
        if is_write && *writing != slice {
            self.stream.set_write_timeout(slice)?;
            *writing = slice;
        } else if !is_write && *reading != slice {
            self.stream.set_read_timeout(slice)?;
            *reading = slice;
        }
        Ok(())
    }
}

/// Whether a call ended because its time limit did.
fn is_over(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted)
}

impl Transport for Socket {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), Error> {
        let started = Instant::now();
        let mut sent = 0;
        while sent < amount {
            self.limit(&timeout, started, true)?;
            match self.stream.write(self.buffers.output().get(sent..amount).unwrap_or_default()) {
                Ok(0) => return Err(io::Error::from(io::ErrorKind::WriteZero).into()),
                Ok(count) => sent += count,
                Err(e) if is_over(&e) => {}
                Err(e) => return Err(e.into()),
            }
        }
        Ok(())
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, Error> {
        let started = Instant::now();
        loop {
            self.limit(&timeout, started, false)?;
            match self.stream.read(self.buffers.input_append_buf()) {
                Ok(count) => {
                    self.buffers.input_appended(count);
                    return Ok(count > 0);
                }
                Err(e) if is_over(&e) => {}
                Err(e) => return Err(e.into()),
            }
        }
    }

    /// An idle connection is open if there is nothing to read.
    fn is_open(&mut self) -> bool {
        let probe = || {
            self.stream.set_nonblocking(true)?;
            let peeked = self.stream.peek(&mut [0]);
            self.stream.set_nonblocking(false)?;
            Ok::<_, io::Error>(peeked.is_err_and(|e| e.kind() == io::ErrorKind::WouldBlock))
        };
        probe().unwrap_or(false)
    }
}
