use std::cell::{Cell, RefCell};

use sha2::{Digest as _, Sha256};

use super::*;
use crate::disk::Faults;
use crate::error::Fault;
use crate::fetch::{FetchError, MemoryFetch, Reply};

const URL: &str = "test:/file";

/// 300,000 bytes, no two stretches alike.
fn content() -> Vec<u8> {
    (0..75_000_u32).flat_map(|i| i.wrapping_mul(2_654_435_761).to_le_bytes()).collect()
}

fn wanted(bytes: &[u8]) -> Wanted {
    let hashes = Hashes::sha256(Sha256::digest(bytes).into());
    Wanted { name: "dir/file".into(), url: URL.into(), length: bytes.len() as u64, hashes }
}

fn run(fetch: &impl Fetch, disk: &Disk, bytes: &[u8], path: &Path) -> Result<(), Error> {
    download(fetch, disk, &wanted(bytes), path, &mut |_| Ok(()))
}

/// Serves a file whose transfer fails after `cut` bytes, and records the requested offsets.
struct Cut<'a> {
    bytes: &'a [u8],
    sent_at_most: Cell<usize>,
    offsets: RefCell<Vec<u64>>,
    honours_ranges: bool,
}

impl<'a> Cut<'a> {
    fn new(bytes: &'a [u8], cut: usize) -> Self {
        Self { bytes, sent_at_most: Cell::new(cut), offsets: RefCell::default(), honours_ranges: true }
    }
}

impl Fetch for Cut<'_> {
    fn fetch(&self, request: &Request<'_>) -> Result<Reply, FetchError> {
        self.offsets.borrow_mut().push(request.offset);
        let offset = if self.honours_ranges { request.offset } else { 0 };
        let rest = &self.bytes[usize::try_from(offset).unwrap().min(self.bytes.len())..];
        let sent = &rest[..rest.len().min(self.sent_at_most.get())];
        let broken = if sent.len() < rest.len() { Some(Broken) } else { None };
        let reader: Box<dyn io::Read + Send> = match broken {
            Some(broken) => Box::new(io::Cursor::new(sent.to_vec()).chain(broken)),
            None => Box::new(io::Cursor::new(sent.to_vec())),
        };
        Ok(Reply::Found(crate::fetch::Body::new(reader, request, offset)))
    }
}

struct Broken;

impl io::Read for Broken {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        Err(io::ErrorKind::ConnectionReset.into())
    }
}

#[test]
fn a_file_comes_whole_and_only_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("below/file");
    let bytes = content();
    let fetch = MemoryFetch::new();
    fetch.put(URL, bytes.clone());
    let mut seen = Vec::new();
    download(&fetch, &Disk::new(), &wanted(&bytes), &path, &mut |p| {
        seen.push((p.done, p.total));
        Ok(())
    })
    .unwrap();
    assert_eq!(fs::read(&path).unwrap(), bytes);
    assert_eq!(seen.last(), Some(&(300_000, 300_000)));
    run(&fetch, &Disk::new(), &bytes, &path).unwrap();
    assert_eq!(fetch.take_requests().len(), 1);
    // Damaged since: it comes again.
    fs::write(&path, vec![0; bytes.len()]).unwrap();
    run(&fetch, &Disk::new(), &bytes, &path).unwrap();
    assert_eq!(fs::read(&path).unwrap(), bytes);
    assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
}

#[test]
fn a_cut_transfer_goes_on_where_it_stopped() {
    let bytes = content();
    for honours_ranges in [true, false] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let server = Cut { honours_ranges, ..Cut::new(&bytes, 100_000) };
        for _ in 0..2 {
            let error = run(&server, &Disk::new(), &bytes, &path).unwrap_err();
            assert_eq!(error.fault(), Fault::Network, "{error}");
            assert!(!path.exists());
        }
        server.sent_at_most.set(usize::MAX);
        run(&server, &Disk::new(), &bytes, &path).unwrap();
        assert_eq!(fs::read(&path).unwrap(), bytes);
        let expected = if honours_ranges { [0, 100_000, 200_000] } else { [0, 100_000, 100_000] };
        assert_eq!(*server.offsets.borrow(), expected);
    }
}

#[test]
fn a_stale_part_is_discarded() {
    let bytes = content();
    for part in [vec![7; 1000], vec![7; bytes.len()], vec![7; bytes.len() + 1], Vec::new()] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        fs::write(part_of(&path), &part).unwrap();
        let server = Cut::new(&bytes, usize::MAX);
        run(&server, &Disk::new(), &bytes, &path).unwrap();
        assert_eq!(fs::read(&path).unwrap(), bytes);
        assert!(!part_of(&path).exists());
    }
}

#[test]
fn a_wrong_file_is_refused_and_removed() {
    let bytes = content();
    let mut flipped = bytes.clone();
    flipped[123_456] ^= 1;
    for (name, served) in [("one bit flipped", flipped), ("too long", [bytes.clone(), vec![0]].concat())] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let fetch = MemoryFetch::new();
        fetch.put(URL, served);
        let error = run(&fetch, &Disk::new(), &bytes, &path).unwrap_err();
        assert_eq!(error.fault(), Fault::Peer, "{name}: {error}");
        assert!(!path.exists(), "{name}");
        assert!(!part_of(&path).exists() || name == "too long", "{name}");
    }
}

/// Answers from the first byte on, whatever is asked for, with the head that HTTP gives.
struct Whole(Vec<u8>, Option<u64>, Option<&'static str>);

impl Fetch for Whole {
    fn fetch(&self, request: &Request<'_>) -> Result<Reply, FetchError> {
        let body = Body::new(Box::new(io::Cursor::new(self.0.clone())), request, 0);
        let doubt = self.2.map(str::to_owned);
        let head = crate::fetch::Head { length: self.1, doubt, ..Default::default() };
        Ok(Reply::Found(body.with_head(head)))
    }
}

#[test]
fn a_body_that_ends_early_is_an_interruption() {
    let bytes = content();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    for kept in [0, 100_000, 100_000, 250_000] {
        for length in [None, Some(kept as u64)] {
            let error = run(&Whole(bytes[..kept].to_vec(), length, None), &Disk::new(), &bytes, &path).unwrap_err();
            assert_eq!(error.fault(), Fault::Network, "{error}");
            assert!(error.to_string().ends_with(&format!("it ended after {kept} of 300000 bytes")), "{error}");
            assert_eq!(fs::read(part_of(&path)).unwrap(), bytes[..kept]);
        }
    }
    // One that comes less far takes nothing away.
    run(&Whole(bytes[..7].to_vec(), None, None), &Disk::new(), &bytes, &path).unwrap_err();
    assert_eq!(fs::metadata(part_of(&path)).unwrap().len(), 250_000);
    run(&Whole(bytes.clone(), None, None), &Disk::new(), &bytes, &path).unwrap();
    assert_eq!(fs::read(&path).unwrap(), bytes);
}

#[test]
fn what_cannot_be_the_file_takes_nothing_away() {
    let bytes = content();
    let page = b"<html><title>Log in</title></html>".to_vec();
    let long = [page.clone(), vec![b' '; 400_000]].concat();
    let same_length = [page.clone(), vec![b' '; bytes.len() - page.len()]].concat();
    let doubt = Some(" with text/html (Log in)");
    for (name, came, fault) in [
        ("a page", Whole(page.clone(), Some(page.len() as u64), doubt), Fault::Network),
        ("a page without a length", Whole(page.clone(), None, doubt), Fault::Network),
        ("a page without a length, longer", Whole(long.clone(), None, doubt), Fault::Network),
        ("a page of the same length", Whole(same_length, Some(300_000), doubt), Fault::Network),
        ("something short", Whole(b"{\"login\": 1}".to_vec(), Some(12), None), Fault::Network),
        ("something long", Whole(long, None, None), Fault::Peer),
        ("zeros", Whole(vec![0; bytes.len()], Some(300_000), None), Fault::Peer),
    ] {
        for here in [0, 100_000] {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("file");
            if here > 0 {
                fs::write(part_of(&path), &bytes[..here]).unwrap();
            }
            let error = run(&came, &Disk::new(), &bytes, &path).unwrap_err();
            assert!(!path.exists());
            if here > 0 {
                assert_eq!(error.fault(), fault, "{name}: {error}");
                assert_eq!(fs::read(part_of(&path)).unwrap(), bytes[..here], "{name}");
            } else if name.starts_with("a page") {
                assert!(!part_of(&path).exists(), "{name}");
            }
            if error.fault() == Fault::Network && came.2.is_some() {
                assert!(
                    error.to_string().ends_with("the server answered 200 with text/html (Log in)"),
                    "{name}: {error}"
                );
            }
            run(&Cut::new(&bytes, usize::MAX), &Disk::new(), &bytes, &path).unwrap();
            assert_eq!(fs::read(&path).unwrap(), bytes, "{name}");
        }
    }
}

/// A label may be wrong, and a file may be signed in compressed form.
#[cfg(feature = "http")]
#[test]
fn labels_of_gzip_do_no_harm() {
    use crate::fetch::http::HttpFetch;
    use crate::fetch::http::tests::{Server, answer, gzip, raw};

    let plain = content();
    let packed = gzip(&[plain.clone(), vec![0; 1_000_000]].concat());
    let small = gzip(b"small");
    let unpacked = [b"begins".to_vec(), vec![7; 50_000]].concat();
    for (name, file, sent, is_labelled, with_length, requests) in [
        ("a file", &plain, &plain, false, true, 1),
        ("a file, chunked", &plain, &plain, false, false, 1),
        ("a file with a label", &plain, &plain, true, true, 1),
        ("a file with a label, chunked", &plain, &plain, true, false, 1),
        ("a .gz", &packed, &packed, false, true, 1),
        ("a .gz, chunked", &packed, &packed, false, false, 1),
        ("a .gz with a label", &packed, &packed, true, true, 1),
        ("a .gz with a label, chunked", &packed, &packed, true, false, 2),
        ("a small .gz with a label, chunked", &small, &small, true, false, 2),
        (
            "two members with a label, chunked",
            &[small.clone(), small.clone()].concat(),
            &[small.clone(), small.clone()].concat(),
            true,
            false,
            2,
        ),
        ("compressed on the way", &unpacked, &gzip(&unpacked), true, true, 1),
        ("compressed on the way, chunked", &unpacked, &gzip(&unpacked), true, false, 1),
        ("a .gz, compressed on the way", &packed, &gzip(&packed), true, false, 1),
    ] {
        let label = if is_labelled { "Content-Encoding: gzip\r\n" } else { "" };
        let once = || {
            if with_length {
                return answer("200 OK", label, sent.clone());
            }
            let chunks = sent.chunks(10_000).map(|it| [format!("{:x}\r\n", it.len()).as_bytes(), it, b"\r\n"].concat());
            let head = format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n{label}\r\n");
            raw([head.into_bytes(), chunks.collect::<Vec<_>>().concat(), b"0\r\n\r\n".to_vec()].concat())
        };
        let server = Server::new(vec![once(), once(), once()]);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let at_server = |bytes: &[u8]| Wanted { url: server.url("/file"), ..wanted(bytes) };
        download(&HttpFetch::new(), &Disk::new(), &at_server(file), &path, &mut |_| Ok(()))
            .unwrap_or_else(|e| panic!("{name}: {e}"));
        assert!(fs::read(&path).unwrap() == *file, "{name}");
        assert_eq!(server.seen().len(), requests, "{name}");
        // Another file of this length costs one more request at most.
        let server = Server::new(vec![once(), once(), once()]);
        let (other, path) = (vec![9; file.len()], folder.path().join("other"));
        let wanted = Wanted { url: server.url("/file"), ..wanted(&other) };
        download(&HttpFetch::new(), &Disk::new(), &wanted, &path, &mut |_| Ok(())).unwrap_err();
        assert!(server.seen().len() <= 2 && !path.exists(), "{name}");
    }
}

#[test]
fn a_damaged_part_gives_way_to_the_file_alone() {
    let bytes = content();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    fs::write(part_of(&path), vec![7; 100_000]).unwrap();
    // A server without ranges: the file comes once to see that the part is wrong, and once to be kept.
    run(&Whole(bytes.clone(), None, None), &Disk::new(), &bytes, &path).unwrap();
    assert_eq!(fs::read(&path).unwrap(), bytes);
}

#[test]
fn an_absent_file_and_an_empty_one() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    let fetch = MemoryFetch::new();
    assert!(matches!(run(&fetch, &Disk::new(), b"", &path), Err(Error::Missing { .. })));
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    fetch.put(URL, b"");
    run(&fetch, &Disk::new(), b"", &path).unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"");
}

#[test]
fn a_download_stopped_at_any_step_goes_on() {
    let bytes = content();
    let fetch = MemoryFetch::new();
    fetch.put(URL, bytes.clone());
    let counted = Faults::none();
    let folder = tempfile::tempdir().unwrap();
    run(&fetch, &Disk::with_faults(counted.clone()), &bytes, &folder.path().join("below/file")).unwrap();
    assert!(counted.steps() > 10);
    for n in 0..counted.steps() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("below/file");
        run(&fetch, &Disk::with_faults(Faults::stop_at(n)), &bytes, &path).unwrap_err();
        if path.exists() {
            assert_eq!(fs::read(&path).unwrap(), bytes, "stopped at {n}");
        }
        run(&fetch, &Disk::new(), &bytes, &path).unwrap();
        assert_eq!(fs::read(&path).unwrap(), bytes, "stopped at {n}");
    }
}

#[test]
fn a_full_disk_gets_its_room_back() {
    let bytes = content();
    let fetch = MemoryFetch::new();
    fetch.put(URL, bytes.clone());
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    for n in 0..8 {
        let error = run(&fetch, &Disk::with_faults(Faults::full_from(n)), &bytes, &path).unwrap_err();
        assert_eq!(error.fault(), Fault::Device, "{error}");
        assert!(error.hint().unwrap().contains("space"));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "full from {n}");
    }
    run(&fetch, &Disk::new(), &bytes, &path).unwrap();
}

#[cfg(unix)]
#[test]
fn a_part_that_is_also_another_file_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let (path, other) = (folder.path().join("file"), folder.path().join("other"));
    let bytes = content();
    let fetch = MemoryFetch::new();
    fetch.put(URL, bytes.clone());
    for place in [part_of(&path), path.clone()] {
        // A start of the file, so that it could be continued.
        fs::write(&other, &bytes[..1000]).unwrap();
        for link in [true, false] {
            let _ = fs::remove_file(&place);
            if link { std::os::unix::fs::symlink(&other, &place) } else { fs::hard_link(&other, &place) }.unwrap();
            run(&fetch, &Disk::new(), &bytes, &path).unwrap();
            assert_eq!(fs::read(&path).unwrap(), bytes);
            assert_eq!(fs::read(&other).unwrap(), &bytes[..1000], "{}, a link: {link}", place.display());
        }
        fs::remove_file(&path).unwrap();
    }
}
