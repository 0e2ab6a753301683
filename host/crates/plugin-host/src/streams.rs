//! `wasi:io` without a runtime: all that a guest can wait for has happened already, so each wait is over when it begins.
//! wasmtime-wasi would have tokio wait, which it refuses on its own threads.

use futures::FutureExt;
use wasmtime::{
    Result,
    component::{HasData, Resource, ResourceTable},
    format_err,
};
use wasmtime_wasi::p2::{
    StreamError, StreamResult,
    bindings::sync::io::{
        poll::{self, Pollable},
        streams::{self, InputStream, OutputStream},
    },
};
use wasmtime_wasi_io::bindings::wasi::io::{
    poll::{Host as Polls, HostPollable},
    streams::{HostInputStream, HostOutputStream},
};

/// The streams and pollables of one instance.
pub struct Io<'a>(pub &'a mut ResourceTable);

/// How a linker finds [`Io`].
pub struct HasIo;

impl HasData for HasIo {
    type Data<'a> = Io<'a>;
}

/// What is there at once.
fn at_once<T>(happens: impl Future<Output = T>) -> Result<T> {
    happens
        .now_or_never()
        .ok_or_else(|| format_err!("a plugin waits for what does not happen"))
}

fn stream_at_once<T>(happens: impl Future<Output = StreamResult<T>>) -> StreamResult<T> {
    at_once(happens).map_err(StreamError::Trap)?
}

impl poll::Host for Io<'_> {
    fn poll(&mut self, pollables: Vec<Resource<Pollable>>) -> Result<Vec<u32>> {
        at_once(Polls::poll(self.0, pollables))?
    }
}

impl poll::HostPollable for Io<'_> {
    fn ready(&mut self, pollable: Resource<Pollable>) -> Result<bool> {
        at_once(HostPollable::ready(self.0, pollable))?
    }
    fn block(&mut self, pollable: Resource<Pollable>) -> Result<()> {
        at_once(HostPollable::block(self.0, pollable))?
    }
    fn drop(&mut self, pollable: Resource<Pollable>) -> Result<()> {
        HostPollable::drop(self.0, pollable)
    }
}

impl streams::Host for Io<'_> {
    fn convert_stream_error(&mut self, error: StreamError) -> Result<streams::StreamError> {
        streams::Host::convert_stream_error(self.0, error)
    }
}

impl streams::HostInputStream for Io<'_> {
    fn read(&mut self, stream: Resource<InputStream>, len: u64) -> StreamResult<Vec<u8>> {
        HostInputStream::read(self.0, stream, len)
    }
    fn blocking_read(&mut self, stream: Resource<InputStream>, len: u64) -> StreamResult<Vec<u8>> {
        stream_at_once(HostInputStream::blocking_read(self.0, stream, len))
    }
    fn skip(&mut self, stream: Resource<InputStream>, len: u64) -> StreamResult<u64> {
        HostInputStream::skip(self.0, stream, len)
    }
    fn blocking_skip(&mut self, stream: Resource<InputStream>, len: u64) -> StreamResult<u64> {
        stream_at_once(HostInputStream::blocking_skip(self.0, stream, len))
    }
    fn subscribe(&mut self, stream: Resource<InputStream>) -> Result<Resource<Pollable>> {
        HostInputStream::subscribe(self.0, stream)
    }
    fn drop(&mut self, stream: Resource<InputStream>) -> Result<()> {
        at_once(HostInputStream::drop(self.0, stream))?
    }
}

impl streams::HostOutputStream for Io<'_> {
    fn check_write(&mut self, stream: Resource<OutputStream>) -> StreamResult<u64> {
        HostOutputStream::check_write(self.0, stream)
    }
    fn write(&mut self, stream: Resource<OutputStream>, bytes: Vec<u8>) -> StreamResult<()> {
        HostOutputStream::write(self.0, stream, bytes)
    }
    fn blocking_write_and_flush(
        &mut self,
        stream: Resource<OutputStream>,
        bytes: Vec<u8>,
    ) -> StreamResult<()> {
        stream_at_once(HostOutputStream::blocking_write_and_flush(
            self.0, stream, bytes,
        ))
    }
    fn flush(&mut self, stream: Resource<OutputStream>) -> StreamResult<()> {
        HostOutputStream::flush(self.0, stream)
    }
    fn blocking_flush(&mut self, stream: Resource<OutputStream>) -> StreamResult<()> {
        stream_at_once(HostOutputStream::blocking_flush(self.0, stream))
    }
    fn write_zeroes(&mut self, stream: Resource<OutputStream>, len: u64) -> StreamResult<()> {
        HostOutputStream::write_zeroes(self.0, stream, len)
    }
    fn blocking_write_zeroes_and_flush(
        &mut self,
        stream: Resource<OutputStream>,
        len: u64,
    ) -> StreamResult<()> {
        stream_at_once(HostOutputStream::blocking_write_zeroes_and_flush(
            self.0, stream, len,
        ))
    }
    fn splice(
        &mut self,
        into: Resource<OutputStream>,
        from: Resource<InputStream>,
        len: u64,
    ) -> StreamResult<u64> {
        HostOutputStream::splice(self.0, into, from, len)
    }
    fn blocking_splice(
        &mut self,
        into: Resource<OutputStream>,
        from: Resource<InputStream>,
        len: u64,
    ) -> StreamResult<u64> {
        stream_at_once(HostOutputStream::blocking_splice(self.0, into, from, len))
    }
    fn subscribe(&mut self, stream: Resource<OutputStream>) -> Result<Resource<Pollable>> {
        HostOutputStream::subscribe(self.0, stream)
    }
    fn drop(&mut self, stream: Resource<OutputStream>) -> Result<()> {
        at_once(HostOutputStream::drop(self.0, stream))?
    }
}
