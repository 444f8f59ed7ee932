//! Ping-pong of iceoryx2 between two processes, by publish and subscribe, spinning. Arguments and output are
//! those of the C programs beside this one (`peer.h`). Modes: loaned (a sample is loaned, its first byte is
//! touched, it is sent), copied (contents are copied into the sample and out of it).

use iceoryx2::port::update_connections::UpdateConnections;
use iceoryx2::prelude::*;
use std::error::Error;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// How often the first ball is thrown, until both sides have found each other.
const FIRST_THROWS: Duration = Duration::from_millis(200);

fn main() -> Result<(), Box<dyn Error>> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words[..] {
        ["version"] => {
            // Of the crate that this one is built with; it does not tell its own.
            println!("{}", env!("ICEORYX2_VERSION"));
            Ok(())
        }
        ["lat", size, count, _window, core, other_core, mode] => {
            let name = std::process::id().to_string();
            let mut other = Command::new(std::env::current_exe()?)
                .args(["answer", size, count, &name, other_core, mode])
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .spawn()?;
            let played = play(size, count, &name, core, mode, true);
            if played.is_err() {
                let _ = other.kill();
            }
            let status = other.wait()?;
            played?;
            if status.success() { Ok(()) } else { Err("the other process failed".into()) }
        }
        ["answer", size, count, name, core, mode] => play(size, count, name, core, mode, false),
        _ => Err("iceoryx2 lat SIZE COUNT WINDOW CORE CORE loaned|copied".into()),
    }
}

fn play(size: &str, count: &str, name: &str, core: &str, mode: &str, active: bool) -> Result<(), Box<dyn Error>> {
    let (size, count): (usize, usize) = (size.parse()?, count.parse()?);
    let copied = mode == "copied";
    if let Ok(id) = core.parse()
        && !core_affinity::set_for_current(core_affinity::CoreId { id })
    {
        return Err("cannot be pinned".into());
    }
    let node = NodeBuilder::new().create::<ipc::Service>()?;
    let open = |direction: &str| -> Result<_, Box<dyn Error>> {
        let name = format!("ghidrah-perf-{name}-{direction}");
        let service = node.service_builder(&name.as_str().try_into()?).publish_subscribe::<[u8]>();
        Ok(service.max_publishers(1).max_subscribers(1).subscriber_max_buffer_size(64).open_or_create()?)
    };
    let (ping, pong) = (open("ping")?, open("pong")?);
    let (out, into) = if active { (&ping, &pong) } else { (&pong, &ping) };
    let publisher = out.publisher_builder().initial_max_slice_len(size.max(1)).create()?;
    let subscriber = into.subscriber_builder().create()?;
    let (source, mut sink) = (vec![1u8; size], vec![1u8; size]);
    let throw = |number: usize| -> Result<(), Box<dyn Error>> {
        let sample = publisher.loan_slice_uninit(size)?;
        if copied {
            sample.write_from_slice(&source).send()?;
        } else {
            // SAFETY: any bytes are valid bytes, and nobody looks at more than the first, which is written.
            let mut sample = unsafe { sample.assume_init() };
            if let Some(first) = sample.payload_mut().first_mut() {
                *first = number as u8;
            }
            sample.send()?;
        }
        Ok(())
    };
    let mut caught = || -> Result<bool, Box<dyn Error>> {
        let Some(sample) = subscriber.receive()? else { return Ok(false) };
        if copied {
            sink.copy_from_slice(sample.payload());
            std::hint::black_box(&mut sink);
        } else {
            std::hint::black_box(sample.payload().first());
        }
        Ok(true)
    };
    // Until the subscribers have been found, balls are lost: the first is thrown again and again, and balls that
    // come twice are taken out before it begins.
    if active {
        loop {
            publisher.update_connections()?;
            throw(0)?;
            let thrown = Instant::now();
            let mut back = false;
            while !back && thrown.elapsed() < FIRST_THROWS {
                back = caught()?;
            }
            if back {
                break;
            }
        }
        std::thread::sleep(FIRST_THROWS);
        while caught()? {}
    } else {
        while !caught()? {}
        publisher.update_connections()?;
        throw(0)?;
        // What else was thrown before the first came back.
        let until = Instant::now() + FIRST_THROWS / 2;
        while Instant::now() < until {
            caught()?;
        }
    }
    let warm_up = count / 10 + 1;
    let mut trips = Vec::with_capacity(count);
    for i in 0..warm_up + count {
        let start = Instant::now();
        if active {
            throw(i)?;
        }
        while !caught()? {}
        if !active {
            throw(i)?;
        } else if i >= warm_up {
            trips.push(start.elapsed().as_nanos() as f64);
        }
    }
    if active {
        trips.sort_by(f64::total_cmp);
        let at = |thousandths: usize| trips[(count - 1) * thousandths / 1000] / 2.0;
        let mean = trips.iter().sum::<f64>() / count as f64 / 2.0;
        println!("p50_ns {:.1}\np90_ns {:.1}\np99_ns {:.1}", at(500), at(900), at(990));
        println!("p999_ns {:.1}\nmax_ns {:.1}\nmean_ns {mean:.1}", at(999), at(1000));
    } else {
        // The last ball must be taken before what it lies in goes.
        std::thread::sleep(FIRST_THROWS);
    }
    Ok(())
}
