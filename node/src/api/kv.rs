//! The KV service.

use std::sync::Arc;

use prost::Message;
use sraft_rpc::etcdserverpb::{self as pb, kv_server::Kv};
use tonic::{Request, Response, Status};

use super::{member::Desk, request, response, room::Room, status};
use crate::store::{Done, Op, Outcome};

/// Answers requests for keys and values.
#[derive(Clone, Debug)]
pub(super) struct Keys {
    desk: Desk,
    /// Room for answers on their way out.
    room: Arc<Room>,
}

impl Keys {
    pub(super) fn new(desk: Desk, room: Arc<Room>) -> Keys {
        Keys { desk, room }
    }

    /// An answer with the room that it takes up until it is sent.
    fn answer<T: Message>(&self, message: T) -> Result<Response<T>, Status> {
        let bytes = message.encoded_len();
        let Some(share) = self.room.take(bytes) else {
            let most = self.room.most();
            return Err(match bytes > most {
                true => Status::resource_exhausted(format!(
                    "the answer has {bytes} bytes, at most {most} are sent: ask with a limit"
                )),
                false => status::too_many(),
            });
        };
        let mut response = Response::new(message);
        response.extensions_mut().insert(Arc::new(share));
        Ok(response)
    }
}

#[tonic::async_trait]
impl Kv for Keys {
    async fn range(
        &self,
        request: Request<pb::RangeRequest>,
    ) -> Result<Response<pb::RangeResponse>, Status> {
        let (query, serializable) = request::range(request.into_inner())?;
        let (view, term) = self.desk.read(!serializable).await?;
        if let Some(refusal) = view.refusal(query.revision) {
            return Err(status::refused(refusal));
        }
        let header = self.desk.header(view.revision(), term);
        self.answer(response::range(Some(header), view.list(&query)))
    }

    async fn put(
        &self,
        request: Request<pb::PutRequest>,
    ) -> Result<Response<pb::PutResponse>, Status> {
        let op = Op::Put(request::put(request.into_inner())?);
        let (Outcome { revision, done }, term) = self.desk.write(op).await?;
        let header = Some(self.desk.header(revision, term));
        match done {
            Done::Put { previous } => self.answer(response::put(header, previous)),
            other => Err(otherwise(other)),
        }
    }

    async fn delete_range(
        &self,
        request: Request<pb::DeleteRangeRequest>,
    ) -> Result<Response<pb::DeleteRangeResponse>, Status> {
        let op = Op::Delete(request::delete(request.into_inner())?);
        let (Outcome { revision, done }, term) = self.desk.write(op).await?;
        let header = Some(self.desk.header(revision, term));
        match done {
            Done::Deleted { count, previous } => {
                self.answer(response::delete(header, count, previous))
            }
            other => Err(otherwise(other)),
        }
    }

    async fn txn(
        &self,
        request: Request<pb::TxnRequest>,
    ) -> Result<Response<pb::TxnResponse>, Status> {
        let (txn, serializable) = request::txn(request.into_inner())?;
        let (Outcome { revision, done }, term) = if txn.only_reads() {
            let (view, term) = self.desk.read(!serializable).await?;
            (view.read(txn), term)
        } else {
            self.desk.write(Op::Txn(txn)).await?
        };
        let header = Some(self.desk.header(revision, term));
        match done {
            Done::Txn { succeeded, parts } => self.answer(response::txn(header, succeeded, parts)),
            other => Err(otherwise(other)),
        }
    }

    async fn compact(
        &self,
        _: Request<pb::CompactionRequest>,
    ) -> Result<Response<pb::CompactionResponse>, Status> {
        Err(Status::unimplemented(
            "only the latest revision is kept, so there is nothing to compact",
        ))
    }
}

/// A request that was not carried out, or whose answer is lost.
fn otherwise(done: Done) -> Status {
    match done {
        Done::Refused(refusal) => status::refused(refusal),
        Done::Forgotten => Status::unavailable(
            "the request was carried out, but its answer was lost with the leader: read what you need",
        ),
        Done::Put { .. } | Done::Deleted { .. } | Done::Txn { .. } => {
            Status::internal("the answer belongs to another request; report this mistake")
        }
    }
}
