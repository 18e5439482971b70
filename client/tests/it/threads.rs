//! What crosses threads: all public types are `Send`, and those that are looked at alone `Sync`.

use std::fs;
use std::path::Path;

use tidegate_client as client;

fn sent<T: Send + std::fmt::Debug>() {}

fn shared<T: Send + Sync + std::fmt::Debug>() {}

#[allow(clippy::too_many_lines, reason = "a list")]
#[test]
fn types_cross_threads() {
    shared::<client::Error>();
    shared::<client::Fault>();
    shared::<client::agent::AgentOptions>();
    shared::<client::agent::Permission>();
    shared::<client::agent::Stage>();
    shared::<client::clock::BootInfo>();
    shared::<client::agent::Health>();
    shared::<client::agent::HealthCommand>();
    shared::<client::agent::Next>();
    shared::<client::agent::Schedule>();
    shared::<client::agent::Entry<'static>>();
    shared::<client::agent::StubHost>();
    shared::<client::clock::SystemClock>();
    shared::<client::clock::FlooredClock<client::clock::SystemClock>>();
    shared::<client::clock::StubClock>();
    shared::<client::command::Command>();
    shared::<client::command::Ran>();
    shared::<client::command::CommandError>();
    shared::<client::delivery::Way>();
    sent::<client::device::DeviceBuilder>();
    sent::<client::device::Device>();
    shared::<client::device::Check>();
    shared::<client::device::Update>();
    shared::<client::device::UpdateArtifact>();
    shared::<client::device::Status>();
    shared::<client::device::Downloaded>();
    shared::<client::device::Overwritten>();
    shared::<client::device::Record>();
    shared::<client::device::InstallState>();
    shared::<client::device::Failed>();
    shared::<client::disk::Disk>();
    shared::<client::disk::OpenFile>();
    shared::<client::disk::Step>();
    shared::<client::disk::Faults>();
    shared::<client::download::Wanted>();
    shared::<client::facts::FactSource>();
    shared::<client::facts::Gathered>();
    shared::<client::fetch::AnyFetch>();
    shared::<client::fetch::FetchError>();
    shared::<client::fetch::MemoryFetch>();
    shared::<client::fetch::Refusal>();
    sent::<client::fetch::Body>();
    shared::<client::fetch::Kind>();
    sent::<client::fetch::Reply>();
    shared::<client::fetch::Request<'static>>();
    shared::<client::fetch::Allowance>();
    shared::<client::fetch::Throttle<client::fetch::AnyFetch>>();
    shared::<client::fetch::file::FileFetch>();
    shared::<client::gate::Visit>();
    shared::<client::gate::StubGate>();
    shared::<client::install::BootError>();
    shared::<client::install::BootHook>();
    shared::<client::install::Slot>();
    shared::<client::install::StubBoot>();
    shared::<client::install::CommandInstaller>();
    shared::<client::install::DirectoryInstaller>();
    shared::<client::install::FileSlot>();
    shared::<client::install::SlotImage>();
    shared::<client::install::SlotInstaller<client::install::BootHook>>();
    shared::<client::install::StubInstaller>();
    shared::<client::install::Artifact>();
    shared::<client::install::Destination>();
    shared::<client::install::InstallError>();
    shared::<client::policy::Policy>();
    shared::<client::policy::Overrides>();
    shared::<client::policy::Metered>();
    shared::<client::policy::Deferral>();
    shared::<client::policy::Step>();
    shared::<client::policy::Situation<'static>>();
    shared::<client::policy::Newer>();
    shared::<client::policy::Rule>();
    shared::<client::policy::RuleOutcome>();
    shared::<client::policy::Judgement>();
    shared::<client::receipts::Destination>();
    shared::<client::receipts::Answer>();
    shared::<client::receipts::Sending>();
    shared::<client::receipts::Sent>();
    shared::<client::receipts::ReceiptStatus>();
    shared::<client::retry::Retry>();
    shared::<client::state::Machine>();
    shared::<client::state::Begun>();
    shared::<client::state::State>();
    shared::<client::state::Attempt>();
    shared::<client::state::Event>();
    shared::<client::state::Tolerance>();
    shared::<client::state::InvalidTransition>();
    shared::<client::store::Repair>();
    shared::<client::store::StoreError>();
    shared::<client::store::DirStore>();
    shared::<client::store::MemoryStore>();
    shared::<client::updater::Repository>();
    sent::<client::updater::Updater>();
    shared::<client::watch::Phase>();
    shared::<client::watch::Progress<'static>>();
    shared::<client::watch::Cancel>();
    shared::<client::watch::Cancelled>();
    shared::<client::zone::Zone>();
}

#[cfg(feature = "http")]
#[test]
fn types_of_http_cross_threads() {
    shared::<client::fetch::http::Authorization>();
    shared::<client::fetch::http::Source>();
    shared::<client::fetch::http::AuthorizationError>();
    shared::<client::fetch::http::HttpOptions>();
    shared::<client::fetch::http::HttpFetch>();
    shared::<client::fetch::http::Answered>();
    shared::<client::fetch::http::Proxy>();
    shared::<client::fetch::http::ProxyUrl>();
    shared::<client::fetch::http::Authorities>();
    shared::<client::fetch::http::Identity>();
    shared::<client::fetch::http::TlsError>();
}

#[cfg(feature = "gate")]
#[test]
fn types_of_gates_cross_threads() {
    shared::<client::gate::Signer>();
    shared::<client::gate::CommandAttestor>();
    shared::<client::gate::Challenge<'static>>();
    shared::<client::gate::AttestError>();
    shared::<client::gate::StubAttestor>();
    shared::<client::gate::GateClient>();
    shared::<client::gate::Bank>();
    shared::<client::gate::TpmOptions>();
    shared::<client::gate::TpmAttestor>();
    shared::<client::gate::Evidence>();
    shared::<client::key::DeviceKey>();
    shared::<client::key::KeyError>();
    shared::<client::receipts::FolderSink>();
    shared::<client::receipts::Urls>();
    shared::<client::receipts::PutSink>();
    sent::<client::receipts::GateSink>();
    shared::<client::receipts::StubSink>();
    shared::<client::receipts::Receipts>();
    shared::<client::receipts::Naming>();
}

#[cfg(feature = "testing")]
#[test]
fn types_of_suites_cross_threads() {
    shared::<client::testing::Violation>();
}

/// These hold what the caller lends them, which need not be `Send`.
const LENT: [&str; 2] = ["Agent", "Watch"];

#[test]
fn no_public_type_is_left_out() {
    let here = include_str!("threads.rs");
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src")];
    let mut count = 0;
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            if entry.is_dir() {
                folders.push(entry);
                continue;
            }
            let source = fs::read_to_string(&entry).unwrap();
            let named = |line: &str| {
                let rest = line.strip_prefix("pub struct ").or(line.strip_prefix("pub enum "))?;
                rest.split(|c: char| !c.is_alphanumeric()).next().map(str::to_owned)
            };
            for name in source.lines().filter_map(named).filter(|name| !LENT.contains(&name.as_str())) {
                count += 1;
                let is_listed = ["<", ">"].iter().any(|end| here.contains(&format!("::{name}{end}")));
                assert!(is_listed, "{name} of {} is not listed here", entry.display());
            }
        }
    }
    assert!(count > 100, "{count}");
}
