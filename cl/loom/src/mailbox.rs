//! A thread that goes to sleep while others send it mail.

#[path = "../../src/runtime/doze.rs"]
mod doze;

use crate::check;
use crate::sync::Ordering::Relaxed;
use doze::Doze;
use loom::sync::Arc;
use loom::sync::atomic::AtomicUsize;
use loom::thread;

#[test]
fn a_thread_that_falls_asleep_before_a_mail_is_woken_and_once() {
    check(|| {
        // The queue of mails orders nothing here that the agreement does not.
        let (doze, mails, bells) =
            (Arc::new(Doze::new()), Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let senders = [(); 2].map(|()| {
            let (doze, mails, bells) = (Arc::clone(&doze), Arc::clone(&mails), Arc::clone(&bells));
            thread::spawn(move || {
                mails.fetch_add(1, Relaxed);
                if doze.must_be_woken() {
                    bells.fetch_add(1, Relaxed);
                }
            })
        });
        let sleeps = doze.fall_asleep(|| mails.load(Relaxed) == 0);
        senders.into_iter().for_each(|sender| sender.join().unwrap());
        let rung = bells.load(Relaxed);
        assert!(!sleeps || rung > 0, "asleep before a mail, and no bell");
        assert!(rung <= 1, "one bell wakes it");
    });
}
