//! The commands.

/// A command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Command {
    Check,
    Explain,
    Download,
    Install,
    Confirm,
    Reject,
    Defer,
    Run,
    Status,
    #[cfg(feature = "gate")]
    Receipts,
    /// `receipts --send`
    #[cfg(feature = "gate")]
    SendReceipts,
}

impl Command {
    pub(super) const ALL: &[(&str, Self)] = &[
        ("check", Self::Check),
        ("explain", Self::Explain),
        ("download", Self::Download),
        ("install", Self::Install),
        ("confirm", Self::Confirm),
        ("reject", Self::Reject),
        ("defer", Self::Defer),
        ("run", Self::Run),
        ("status", Self::Status),
        #[cfg(feature = "gate")]
        ("receipts", Self::Receipts),
    ];

    /// Whether it queries the repository and decides, for which it needs facts.
    pub(super) fn decides(self) -> bool {
        matches!(self, Self::Check | Self::Explain | Self::Download | Self::Install | Self::Run)
    }
}
