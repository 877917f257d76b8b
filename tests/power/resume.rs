//! A real server on what a cut left, and the clients of before: they come back with their sessions, send again what was not
//! processed, and work until all is done.
//!
//! The peers speak message by message, since the client library does not resume a session in another process; what is
//! then left to do, one client of the library does.
//!
//! **Invariants.** A session of which a lease was noted is known. All its leases that were not ended are sent again. What was
//! sent before is answered now. In the end every campaign that was there is finished, and each task's counts are the
//! sum of everything that was ever sent and not refused. And the checker, who reads the recorded run up to the cut and all
//! that came after it as one history, finds every rule kept.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::ops::RangeInclusive;
use std::path::Path;
use std::process::ExitStatus;

use tenfold::client::{Client, Config, Control};
use tenfold::protocol::codec;
use tenfold::protocol::frame::{self, Decoder, SERVER_PREFACE_BYTES, VERSIONS};
use tenfold::protocol::messages::{ClientMessage, ServerMessage, WireGrant, WireRefusal, WireRequest, WireSession};
use tenfold::types::{InstanceId, Outcome, Refusal, SessionId, Want};
use tenfold_checker::figures::Figures;
use tenfold_checker::history::{self as words, Instance, Moment, Record};

use crate::disk::Mode;
use crate::fleet;
use crate::history::{self, Teller, dump, look};
use crate::judge::{Finding, Kind};
use crate::mount::Entry;
use crate::server::{PATIENCE, Site};
use crate::story::{self, Heard, Note, Request, Sent, Session, Stage, Story};

/// Higher than that of any connection of the recorded run.
const ATTEMPT: u64 = 1 << 32;

/// What went wrong, if anything, on what a cut in some mode left of a run, whose log up to then is `told`; and what happened
/// if it went on to the end. The server is gone when this returns.
pub(crate) fn resume(data: &Path, files: &Path, story: &Story, told: &[Entry], mode: Mode) -> (Vec<Finding>, Figures) {
    let mut teller = Teller::default();
    teller.hear_all(told);
    // They do not end by themselves any more: others come in their place.
    teller.history.lines.retain(|line| line.record != Record::UntilDone);
    teller.tell([Record::PowerCut { mode: mode.word().to_owned() }]);
    match go_on(data, files, story, &mut teller) {
        Ok(Went::ToTheEnd) => history::findings(&teller.history, &[]),
        Ok(Went::Nowhere) => (history::findings_so_far(&teller.history), Figures::default()),
        Err(finding) => {
            let broken = history::findings_so_far(&teller.history);
            ([finding].into_iter().chain(broken).collect(), Figures::default())
        }
    }
}

/// How far it went.
enum Went {
    /// There was no campaign yet.
    Nowhere,
    ToTheEnd,
}

fn lost(what: String) -> Finding {
    Finding { kind: Kind::Lost, what: format!("going on: {what}") }
}

fn go_on(data: &Path, files: &Path, story: &Story, teller: &mut Teller) -> Result<Went, Finding> {
    let unreadable = |what| Finding { kind: Kind::Unopenable, what };
    teller.tell(dump(data, Moment::Recovered).map_err(unreadable)?.1);
    let mut site = Site::new(data, files);
    site.spawn();
    site.wait_until_ready().map_err(unreadable)?;
    teller.hear(&Note::Ready { instance: site.instance() });
    let instance = InstanceId::parse(&site.instance()).unwrap();
    let mut sums = Sums::new(story);
    for (id, session) in &story.sessions {
        come_back(&site, instance, *id, session, &mut sums, teller)?;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    teller.tell([Record::Calm]);
    let went = runtime.block_on(finish(&site, story, sums, teller))?;
    let Some(stopped) = site.stop().filter(ExitStatus::success) else {
        return Err(lost(format!("the server does not stop, or not well: {}", site.last_words())));
    };
    teller.tell([Record::EndedServer { code: stopped.code() }]);
    teller.tell(dump(data, Moment::Rest).map_err(unreadable)?.1);
    teller.tell([Record::End]);
    Ok(went)
}

/// By campaign and task: what all that was sent amounts to.
struct Sums(BTreeMap<(String, u32), u64>);

impl Sums {
    /// What was sent before, all of which is or will be processed.
    fn new(story: &Story) -> Self {
        let mut sums = Self(BTreeMap::new());
        for session in story.sessions.values() {
            for (number, request) in &session.sent {
                let grant = &session.leases[&request.lease];
                if !matches!(session.heard.get(number), Some(Heard::Refused(_))) {
                    sums.add(&grant.campaign, grant.task, request.what.units());
                }
            }
        }
        sums
    }

    fn add(&mut self, campaign: &str, task: u32, units: u64) {
        *self.0.entry((campaign.to_owned(), task)).or_default() += units;
    }

    fn of(&self, campaign: &str, task: u32) -> u64 {
        self.0.get(&(campaign.to_owned(), task)).copied().unwrap_or_default()
    }
}

/// One client comes back, sends what is not processed, and reports all that it holds.
fn come_back(
    site: &Site,
    instance: InstanceId,
    id: SessionId,
    session: &Session,
    sums: &mut Sums,
    teller: &mut Teller,
) -> Result<(), Finding> {
    let mut peer = Peer::connect(&site.address());
    let confirmed = (1..u64::MAX).take_while(|number| session.heard.contains_key(number)).last().unwrap_or(0);
    let (named, instance) = (Some(Instance(instance.0)), instance.0);
    let wire = WireSession { session: id.0, instance, attempt: ATTEMPT, confirmed, name: "back".to_owned() };
    peer.send(&ClientMessage::Hello { token: String::new(), session: Some(wire) });
    let answer = peer.next()?;
    if matches!(answer, ServerMessage::UnknownSession { .. }) && (session.closing || session.leases.is_empty()) {
        teller.tell_of(id, Record::Forgotten { instance: named });
        return Ok(());
    }
    let ServerMessage::Welcome { through, refusals, leases: resent, .. } = answer else {
        return Err(lost(format!("session {id} was answered {answer:?}")));
    };
    teller.tell_of(id, Record::Resumed { instance: named, through });
    tell_answers(teller, id, session, confirmed + 1..=through, &refusals);
    let heard = session.heard.keys().max().copied().unwrap_or(0);
    if through < heard {
        return Err(lost(format!("session {id} had read the answer to {heard}, {through} is known")));
    }
    let held = peer.grants(resent as usize)?;
    let ended: BTreeSet<u64> = session.sent.range(..=through).map(|(_, request)| request.lease).collect();
    for lease in session.leases.keys().filter(|lease| !ended.contains(lease) && !session.closing) {
        if !held.contains_key(lease) {
            return Err(lost(format!("lease {lease} of session {id} was not sent again")));
        }
    }
    let mut requests: Vec<WireRequest> =
        session.sent.range(through + 1..).map(|(_, request)| to_wire(request)).collect();
    let announced: BTreeSet<u64> = session.sent.values().map(|request| request.lease).collect();
    for (lease, (campaign, grant)) in held.iter().filter(|(lease, _)| !announced.contains(lease)) {
        let number = through + 1 + requests.len() as u64;
        requests.push(WireRequest::Done { lease: *lease, runs: grant.runs });
        if !session.leases.contains_key(lease) {
            teller.begin(id);
            let WireGrant { task, first_run: first, runs, .. } = *grant;
            teller.tell_of(id, Record::Grant { lease: *lease, campaign: campaign.clone(), task, first, runs });
        }
        let what = words::Sent::Done { runs: grant.runs };
        teller.tell_of(id, Record::Send { number, lease: *lease, what });
        sums.add(campaign, grant.task, u64::from(grant.runs));
    }
    if requests.is_empty() {
        return Ok(());
    }
    let last = through + requests.len() as u64;
    peer.send(&ClientMessage::Requests { first: through + 1, confirmed, requests });
    let refused = peer.answers(last)?;
    tell_answers(teller, id, session, through + 1..=last, &refused);
    if refused.iter().any(|stretch| stretch.to > through) {
        return Err(lost(format!("requests of session {id} are refused: {refused:?}")));
    }
    Ok(())
}

/// Writes down answers: for the first time, or again.
fn tell_answers(
    teller: &mut Teller,
    id: SessionId,
    session: &Session,
    numbers: RangeInclusive<u64>,
    refusals: &[WireRefusal],
) {
    for number in numbers {
        let refused = refusals.iter().find(|stretch| (stretch.from..=stretch.to).contains(&number));
        let refused = refused.map(|stretch| Refusal::from(*stretch).reason);
        let heard = history::answer(refused.map_or(Heard::Counted, Heard::Refused));
        let before = session.heard.contains_key(&number);
        teller.tell_of(id, if before { Record::Again { number, heard } } else { Record::Ack { number, heard } });
    }
}

fn to_wire(request: &Request) -> WireRequest {
    let lease = request.lease;
    match request.what {
        Sent::Done(runs) => WireRequest::Done { lease, runs },
        Sent::Mixed { done, failed } => {
            WireRequest::Mixed { lease, done, failed, error: "it was told to fail".to_owned() }
        }
        Sent::Release => WireRequest::Release { lease },
    }
}

/// A client of the library does what is left; then all is counted.
async fn finish(site: &Site, story: &Story, mut sums: Sums, teller: &mut Teller) -> Result<Went, Finding> {
    let there = story.campaigns.values().filter(|(_, stage)| *stage == Stage::Created);
    let names: Vec<String> = there.map(|(campaign, _)| campaign.name.clone()).collect();
    if names.is_empty() {
        return Ok(Went::Nowhere);
    }
    let mut config = Config::new([site.address()]);
    config.want = Want { leases: 16, runs: 8, campaigns: names.clone() };
    config.until_done = true;
    work(Client::start(config).unwrap(), &mut sums, teller).await;
    let control = Control::new(vec![site.address()], PATIENCE);
    teller.tell([Record::Look]);
    for name in &names {
        teller.tell(look(&control, Some(name)).await);
        let status = control.status(Some(name)).await.map_err(|why| lost(format!("campaign {name}: {why}")))?;
        if !status[0].finished {
            return Err(lost(format!("campaign {name} is never finished: {:?}", status[0])));
        }
        let page = control.counts_page(name, 0).await.map_err(|why| lost(format!("campaign {name}: {why}")))?;
        for (task, (_, count)) in (0..).zip(&page.tasks) {
            let (found, known) = (u64::from(count.done) + u64::from(count.extra), sums.of(name, task));
            if found != known {
                let kind = if found < known { Kind::Lost } else { Kind::Invented };
                let what = format!("going on: task {task} of {name} ends with {found}, {known} were sent");
                return Err(Finding { kind, what });
            }
        }
    }
    teller.tell([Record::Looked]);
    Ok(Went::ToTheEnd)
}

/// Does all there is.
async fn work(client: Client, sums: &mut Sums, teller: &mut Teller) {
    let who = teller.begin(client.session());
    teller.tell_of(client.session(), Record::UntilDone);
    let mut answers = Vec::new();
    while let Some(lease) = tokio::time::timeout(PATIENCE, client.next_lease()).await.unwrap_or_default() {
        let (session, id, runs) = (lease.session(), lease.id().to_u64(), lease.runs());
        let (campaign, task) = (lease.campaign().to_owned(), lease.index().0);
        sums.add(&campaign, task, u64::from(runs));
        let grant = story::Grant { campaign, task, first: lease.first_run(), runs };
        teller.hear(&Note::Grant { session, lease: id, grant });
        let request = Request { lease: id, what: Sent::Done(runs) };
        answers.push(lease.report_noted(Outcome::Done { runs }, |number| {
            teller.hear(&Note::Send { session, number, request });
        }));
    }
    // They came before the end: `until_done` waits for them.
    for answer in answers {
        let (session, number) = (answer.session(), answer.number());
        let heard = fleet::heard(answer).await;
        teller.hear(&Note::Ack { session, number, heard });
    }
    teller.hear(&Note::Closing { session: client.session() });
    let goodbye = client.close(PATIENCE).await.said_goodbye;
    teller.history.push(who, Record::Closed { goodbye });
}

/// A native peer that does nothing by itself.
struct Peer {
    stream: TcpStream,
    decoder: Decoder,
    campaigns: BTreeMap<u32, String>,
}

impl Peer {
    fn connect(address: &str) -> Self {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(&frame::client_preface(VERSIONS)).unwrap();
        let mut preface = [0; SERVER_PREFACE_BYTES];
        stream.read_exact(&mut preface).unwrap();
        Self { stream, decoder: Decoder::new(1 << 20), campaigns: BTreeMap::new() }
    }

    fn send(&mut self, message: &ClientMessage) {
        let mut bytes = Vec::new();
        codec::encode_client(message, &mut bytes).unwrap();
        self.stream.write_all(&bytes).unwrap();
    }

    fn next(&mut self) -> Result<ServerMessage, Finding> {
        loop {
            if let Some(body) = self.decoder.next_frame().unwrap() {
                return Ok(codec::decode_server(body).unwrap());
            }
            let mut bytes = [0; 4_096];
            match self.stream.read(&mut bytes) {
                Ok(0) => return Err(lost("the server has closed a connection".to_owned())),
                Ok(read) => self.decoder.push(&bytes[..read]),
                Err(error) => return Err(lost(format!("no answer: {error}"))),
            }
        }
    }

    /// So many leases that are sent again, with the names of their campaigns.
    fn grants(&mut self, leases: usize) -> Result<BTreeMap<u64, (String, WireGrant)>, Finding> {
        let mut held = BTreeMap::new();
        while held.len() < leases {
            if let ServerMessage::Grants { campaigns, grants, .. } = self.next()? {
                self.campaigns.extend(campaigns.into_iter().map(|campaign| (campaign.id, campaign.name)));
                held.extend(grants.into_iter().map(|grant| {
                    (grant.lease, (self.campaigns.get(&grant.campaign).cloned().unwrap_or_default(), grant))
                }));
            }
        }
        Ok(held)
    }

    /// Waits for the answer to a request; what is refused.
    fn answers(&mut self, last: u64) -> Result<Vec<WireRefusal>, Finding> {
        loop {
            if let ServerMessage::Answers { through, refusals } = self.next()?
                && through >= last
            {
                return Ok(refusals);
            }
        }
    }
}
