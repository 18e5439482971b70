//! A board with two slots, a boot loader and a state folder, all of it in one folder: what is there survives a process.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use chrono::{DateTime, Utc};
use tidegate_client::Error;
use tidegate_client::agent::{Agent, AgentOptions, Entry, Health, HealthCommand, Host, Next};
use tidegate_client::clock::BootInfo;
use tidegate_client::command::Command;
use tidegate_client::device::{Device, DeviceBuilder, Status};
use tidegate_client::disk::Disk;
use tidegate_client::install::{Boot, BootError, BootHook, Slot, SlotImage, SlotInstaller};
use tidegate_client::state::State;
use tidegate_client::store::StoreError;

use crate::fleet;
use crate::mirror::Mirror;
use crate::simulator::{Simulator, epoch};

/// The whole fleet as one cohort.
pub const ALL: &[(&str, Option<u32>)] = &[("all", Some(1_000_000))];
pub const WELL: &[u8] = b"a new image that is well";
pub const UNWELL: &[u8] = b"a new image that is not";
pub const OLD: &[u8] = b"the image that the board left the factory with";

pub struct Board {
    pub folder: PathBuf,
    pub mirror: Mirror,
    pub options: AgentOptions,
    pub now: DateTime<Utc>,
    /// A program that speaks with the boot loader, instead of this process.
    pub hook: Option<BootHook>,
    /// What else there is to say of the device.
    pub adjust: fn(DeviceBuilder) -> DeviceBuilder,
}

impl Board {
    /// A board in its first boot, as it left the factory, in slot a.
    pub fn new(folder: &Path, mirror: &Mirror) -> Self {
        let board = Self::existing(folder, mirror);
        fs::create_dir_all(folder).unwrap();
        fs::write(folder.join("slot.a"), OLD).unwrap();
        fs::write(folder.join("slot.b"), b"").unwrap();
        for (name, value) in [("running", "a"), ("kept", "a"), ("attempted", ""), ("boots", "1"), ("uptime", "10")] {
            board.set(name, value);
        }
        board.point();
        board
    }

    /// The board that is in this folder.
    pub fn existing(folder: &Path, mirror: &Mirror) -> Self {
        Self {
            folder: folder.into(),
            mirror: mirror.clone(),
            options: AgentOptions::default(),
            now: epoch(),
            hook: None,
            adjust: |builder| builder,
        }
    }

    /// A board whose health is for the new system to say: it is well if its image says so.
    pub fn with_health(mut self) -> Self {
        let words = ["grep", "-q", "well", &self.folder.join("system").display().to_string()].map(str::to_owned);
        self.options.health = Health::Command(HealthCommand {
            command: Command::new(words, Duration::from_secs(20)),
            within: Duration::from_secs(60),
            every: Duration::from_secs(10),
        });
        self
    }

    /// The same, with a boot hook that hangs when it is called for the `n`-th time.
    pub fn with_hook_hanging_at(mut self, n: usize) -> Self {
        const HOOK: &str = r#"
            cd "$1"; n=$(cat calls 2>/dev/null || echo 0); echo $((n + 1)) > calls; [ "$n" != "$2" ] || sleep 600
            put() { printf %s "$2" > "new.$1"; mv "new.$1" "$1"; }
            case "$3" in
              running) cat running ;;
              try) put invalid ""; put attempted "$4" ;;
              keep) put kept "$4"; put attempted "" ;;
              invalid) put invalid "$4" ;;
            esac
        "#;
        let words = ["sh", "-c", HOOK, "hook", &self.folder.display().to_string(), &n.to_string()].map(str::to_owned);
        self.hook = Some(BootHook::new(Command::new(words, Duration::from_millis(500))));
        self
    }

    pub fn builder(&self, disk: Disk) -> DeviceBuilder {
        let image = SlotImage::only(self.folder.join("slot.a"), self.folder.join("slot.b"));
        let host = self.host();
        let builder = fleet::device(&self.mirror, &self.folder.join("state"), self.now).disk(disk.clone());
        let builder = builder.boot(move || host.boot());
        (self.adjust)(if let Some(hook) = self.hook.clone() {
            builder.installer(SlotInstaller::new(vec![image], hook).unwrap().on(disk))
        } else {
            let boot = FileBoot { folder: self.folder.clone(), disk: disk.clone() };
            builder.installer(SlotInstaller::new(vec![image], boot).unwrap().on(disk))
        })
    }

    pub fn device(&self) -> Device {
        self.open(&Disk::new()).unwrap()
    }

    pub fn open(&self, disk: &Disk) -> Result<Device, Error> {
        loop {
            match self.builder(disk.clone()).open() {
                // Another test starts a program at this moment, and that holds the lock until it has replaced itself.
                Err(Error::Store(StoreError::Locked { .. })) => std::thread::sleep(Duration::from_millis(1)),
                opened => return opened,
            }
        }
    }

    /// One call of the agent by one process.
    #[allow(
        clippy::needless_pass_by_value,
        reason = "a disk is as cheap as its handle, and is written where this is called"
    )]
    pub fn check(&self, disk: Disk) -> Result<Next, Error> {
        let options = AgentOptions {
            health: match self.options.health.clone() {
                Health::Command(health) => {
                    Health::Command(HealthCommand { command: health.command.on(disk.clone()), ..health })
                }
                other => other,
            },
            ..self.options.clone()
        };
        let mut device = self.open(&disk)?;
        Agent::new(&mut device, &options, &mut self.host()).check()
    }

    /// Calls the agent as often as it asks for, restarts when it asks for that, until nothing is left to do now.
    pub fn run(&self, disk: &Disk) -> Result<State, Error> {
        for _ in 0..40 {
            match self.check(disk.clone())? {
                Next::Restart => self.restart(),
                Next::Look { after } => self.pass(after.as_secs().max(1)),
                Next::Check { until: Some(until) } if until <= self.now => {}
                Next::Check { .. } => break,
            }
        }
        Ok(self.state())
    }

    pub fn restart(&self) {
        let attempted = self.get("attempted");
        self.set("attempted", "");
        let starts = if attempted.is_empty() { self.get("kept") } else { attempted };
        assert_ne!(starts, self.invalid(), "a slot that is being written starts");
        self.set("running", &starts);
        self.set("boots", &(self.get("boots").parse::<u32>().unwrap() + 1).to_string());
        self.set("uptime", "5");
        self.point();
    }

    /// The boot loader forgets what it was told to try.
    pub fn forget_attempt(&self) {
        self.set("attempted", "");
    }

    /// The boot loader starts the other slot, and keeps it.
    pub fn fall_back(&self) {
        let other = if self.get("running") == "a" { "b" } else { "a" };
        self.set("kept", other);
        self.restart();
    }

    /// Makes the link `system` lead to the slot that runs.
    fn point(&self) {
        let _ = fs::remove_file(self.folder.join("system"));
        std::os::unix::fs::symlink(format!("slot.{}", self.get("running")), self.folder.join("system")).unwrap();
    }

    pub fn pass(&self, seconds: u64) {
        self.set("uptime", &(self.get("uptime").parse::<u64>().unwrap() + seconds).to_string());
    }

    pub fn host(&self) -> BoardHost {
        BoardHost(self.folder.clone())
    }

    /// The image in the slot that runs.
    pub fn runs(&self) -> Vec<u8> {
        fs::read(self.folder.join(format!("slot.{}", self.get("running")))).unwrap()
    }

    pub fn status(&self) -> Status {
        self.builder(Disk::new()).observe().unwrap()
    }

    pub fn state(&self) -> State {
        self.status().update.state
    }

    /// The slot that must not start.
    pub fn invalid(&self) -> String {
        fs::read_to_string(self.folder.join("invalid")).unwrap_or_default()
    }

    pub fn get(&self, name: &str) -> String {
        fs::read_to_string(self.folder.join(name)).unwrap()
    }

    /// As atomic as a boot loader's environment is.
    fn set(&self, name: &str, value: &str) {
        fs::write(self.folder.join("new"), value).unwrap();
        fs::rename(self.folder.join("new"), self.folder.join(name)).unwrap();
    }
}

/// The boot loader, through files.
struct FileBoot {
    folder: PathBuf,
    disk: Disk,
}

impl FileBoot {
    fn call(&self) -> Result<Board, BootError> {
        self.disk.call().map_err(|e| BootError::NoSlot(e.to_string()))?;
        Ok(Board::existing(&self.folder, &Mirror::of(crate::simulator::Simulator::empty())))
    }
}

impl Boot for FileBoot {
    fn running(&mut self) -> Result<Slot, BootError> {
        Ok(Slot::named(&self.call()?.get("running")).unwrap())
    }

    fn attempt(&mut self, slot: Slot) -> Result<(), BootError> {
        let board = self.call()?;
        if board.invalid() == slot.to_string() {
            board.set("invalid", "");
        }
        board.set("attempted", &slot.to_string());
        Ok(())
    }

    fn keep(&mut self, slot: Slot) -> Result<(), BootError> {
        let board = self.call()?;
        board.set("kept", &slot.to_string());
        board.set("attempted", "");
        if board.invalid() == slot.to_string() {
            board.set("invalid", "");
        }
        Ok(())
    }

    fn invalidate(&mut self, slot: Slot) -> Result<bool, BootError> {
        self.call()?.set("invalid", &slot.to_string());
        Ok(true)
    }
}

pub struct BoardHost(PathBuf);

impl Host for BoardHost {
    fn boot(&self) -> BootInfo {
        let read = |name| fs::read_to_string(self.0.join(name)).unwrap();
        BootInfo { id: read("boots"), uptime: read("uptime").parse().unwrap() }
    }

    fn note(&mut self, _: &Entry<'_>) {}
}

/// A repository that assigns release 1.2.0 with this image to every device.
pub fn repository(image: &[u8]) -> Simulator {
    let mut sim = fleet::channel(ALL);
    fleet::release_image(&mut sim, "all", "1.2.0", 12, image);
    sim
}

pub fn mirror(image: &[u8]) -> Mirror {
    Mirror::of(repository(image))
}
