//! The way in for clients: their ports, and what they are told of the cluster.

use sraft_core::NodeId;

use crate::{
    api,
    peers::Address,
    settings::{Clients, Settings},
    transport,
};

/// Binds the ports for clients.
pub(super) async fn open(clients: &Clients) -> anyhow::Result<api::Listeners> {
    let client = transport::bind(&clients.client, "--client-port").await?;
    let admin = transport::bind(&clients.admin, "--admin-port").await?;
    Ok(api::Listeners { client: client.into_std()?, admin: admin.into_std()? })
}

/// What clients are told of the cluster, and how many of them there may be.
pub(super) fn reception(settings: &Settings, members: &[NodeId]) -> api::Settings {
    let limits = api::Limits::default();
    let most = settings.clients.as_ref().and_then(|clients| clients.most);
    let member = |id: &NodeId| {
        let own = *id == settings.core.id;
        let at = |port| Address { host: settings.host.clone(), port };
        let peer = match settings.peers.get(id) {
            Some(peer) => peer.clone(),
            None => at(settings.listen.port),
        };
        let clients = settings.clients.as_ref().filter(|_| own);
        api::Member {
            id: *id,
            name: format!("node-{id}"),
            peer_url: format!("http://{peer}"),
            client_url: clients.map(|clients| format!("http://{}", at(clients.client.port))),
        }
    };
    api::Settings {
        id: settings.core.id,
        cluster: settings.cluster.clone(),
        members: members.iter().map(member).collect(),
        limits: api::Limits {
            connections: most.map_or(limits.connections, |most| most as usize),
            request_bytes: settings.max_request_bytes,
            ..limits
        },
    }
}
