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
    Doctor,
    Quarantine,
    Run,
    Status,
    Receipts,
    /// `receipts --send`
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
        ("doctor", Self::Doctor),
        ("quarantine", Self::Quarantine),
        ("run", Self::Run),
        ("status", Self::Status),
        ("receipts", Self::Receipts),
    ];

    /// Whether it decides, for which it needs facts.
    pub(super) fn decides(self) -> bool {
        !matches!(self, Self::Confirm | Self::Reject | Self::Quarantine | Self::Receipts | Self::SendReceipts)
    }
}
