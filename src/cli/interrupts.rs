//! Ctrl-C and its like, as messages.
//! Does not know what they end.

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

/// One message for every Ctrl-C, TERM or hang-up.
pub fn listen() -> mpsc::UnboundedReceiver<()> {
    let (sender, receiver) = mpsc::unbounded_channel();
    for kind in [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()] {
        if let Ok(mut signals) = signal(kind) {
            let sender = sender.clone();
            tokio::spawn(async move {
                while signals.recv().await.is_some() {
                    let _ = sender.send(());
                }
            });
        }
    }
    receiver
}
