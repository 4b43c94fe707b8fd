//! The supervision tree, in start order; it is stopped in the opposite one.
//!
//! ```text
//! image-proxy   rest_for_one
//! |- clients    the pool of the origin's clients: idle ones are closed, all of them at the end
//! |- folder     the background work that fills the folder: ended at the end
//! |- images     the call server; a worker actor a request
//! `- listener   connections, ended with their requests
//! ```

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use plimsoll::bounded::{ByteCache, ByteCacheCaps, PoolSettings, TaskPool, TaskPoolCaps};
use plimsoll::call::CallServer;
use plimsoll::inspect::{Details, Inspect};
use plimsoll::supervisor::{ChildSpec, Strategy, Supervisor, SupervisorRef};
use tokio::net::{TcpListener, TcpSocket};

use crate::front::{Bounds, Front};
use crate::images::{Images, Mechanisms};
use crate::origin::{Clients, Origin};
use crate::settings::Settings;
use crate::store::Store;

/// Connections that wait in the kernel's queue.
const BACKLOG: u32 = 1_024;

/// Shows the cache in the snapshot, beside the background work that fills the folder.
struct Background {
    pool: TaskPool,
    images: Images,
}

impl Inspect for Background {
    fn inspect(&self) -> Details {
        let mut details = self.pool.inspect();
        details.counters.extend(self.images.cache.inspect().counters);
        details
    }
}

/// Starts the proxy; the address that it listens on.
pub(crate) async fn start(settings: Settings) -> anyhow::Result<(SupervisorRef, SocketAddr)> {
    let listener = listen(&settings).with_context(|| format!("cannot listen on {}", settings.listen))?;
    let (listener, address) = (Arc::new(listener), settings.listen);
    let address = listener.local_addr().unwrap_or(address);
    let mechanisms = Mechanisms::new(&settings);
    #[cfg(plimsoll_controls)]
    let mechanisms = crate::controls::without_listed(mechanisms);
    let images = images(&settings, mechanisms)?;
    let front = Arc::new(Front::new(mechanisms));
    let (pool, background) = (images.origin.pool().clone(), images.background.clone());
    let clients = ChildSpec::task("clients", {
        let pool = pool.clone();
        move |stop| {
            let pool = pool.clone();
            async move {
                pool.run(stop).await;
                Ok(())
            }
        }
    });
    let folder = ChildSpec::task("folder", {
        let background = background.clone();
        move |stop| background.clone().run(stop)
    });
    let inspect = Arc::new(Background { pool: background, images: images.clone() });
    let work = ChildSpec::new("images", {
        let (front, requests) = (front.clone(), settings.requests.get() as u32);
        move |parent| {
            let (images, front) = (images.clone(), front.clone());
            async move {
                let server = CallServer::builder(images).max_in_flight(requests).deadline(Duration::from_secs(10));
                let started = server.start_linked(parent).await?;
                *front.images.write() = Some(started.client());
                Ok::<_, plimsoll::supervisor::BoxError>(started)
            }
        }
    });
    let listening = ChildSpec::task("listener", {
        let front = front.clone();
        let bounds = Bounds { connections: settings.connections, patience: settings.client_patience() };
        move |stop| {
            let serving = front.clone().serve(listener.clone(), bounds, stop);
            async move { Ok(serving.await?) }
        }
    });
    let tree = Supervisor::builder("image-proxy")
        .strategy(Strategy::RestForOne)
        .intensity(3, Duration::from_secs(10))
        .child(clients.inspect(Arc::new(pool)))
        .child(folder.inspect(inspect))
        .child(work)
        .child(listening)
        .start()
        .await?;
    *front.tree.write() = Some(tree.clone());
    Ok((tree, address))
}

/// A listener whose connections inherit the bound on what the kernel holds.
fn listen(settings: &Settings) -> io::Result<TcpListener> {
    let address = settings.listen;
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?;
    socket.set_send_buffer_size(settings.socket_bytes())?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

fn images(settings: &Settings, mechanisms: Mechanisms) -> anyhow::Result<Images> {
    let pool = PoolSettings {
        name: "clients".into(),
        cap: mechanisms.pool_cap,
        idle_time: settings.pool_idle(),
        ..PoolSettings::default()
    };
    let cache = ByteCacheCaps {
        bytes: settings.cache,
        entry: settings.image,
        ttl: settings.image_ttl(),
        ..ByteCacheCaps::default()
    };
    let clients = Clients { patience: settings.patience(), socket: settings.socket_bytes() as usize };
    let store = Store::open(settings.store.clone(), settings.stored, settings.image, settings.store_delay());
    Ok(Images {
        origin: Origin::new(settings.origin, clients, pool, settings.image_ttl(), mechanisms.discard),
        cache: ByteCache::new("memory", cache),
        store: store.with_context(|| format!("cannot use the folder {}", settings.store.display()))?,
        background: TaskPool::new("writes", TaskPoolCaps::default()),
        mechanisms,
        patience: settings.patience(),
    })
}
