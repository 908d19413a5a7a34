//! `preflow run --wait`: the label page beside a run, until there are enough votes.
//! Decides nothing about stages: it says when one should be looked at again.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::serve::{Page, announce, folder, not_served, open_session};
use crate::cli::{Global, complain};
use crate::graph::Producer;
use crate::label::{self, Assignment, FolderSnapshot, Links};
use crate::project::{Failure, Project, labelling};
use crate::protocol::InputSpec;
use crate::report::{OutputStyle, Style};
use crate::run::{ChangedSources, People};
use crate::votes::{self, Effective, Folder};

/// How often the folder of votes is looked at: people and `git pull` write to it.
const LOOK_AFTER: Duration = Duration::from_secs(1);

/// Opens a label page for every stage that waits for people.
pub struct Asking<'a> {
    project: &'a Project,
    page: Page,
    global: Global,
    look: OutputStyle,
    /// Stages that have their page.
    served: RefCell<BTreeSet<usize>>,
}

impl<'a> Asking<'a> {
    /// Pages like `page`, for stages of `project`.
    ///
    /// # Errors
    /// The page would let anybody vote.
    pub fn new(
        project: &'a Project,
        page: &Page,
        global: &Global,
        look: OutputStyle,
    ) -> Result<Self, Failure> {
        page.check()?;
        Ok(Self {
            project,
            page: page.clone(),
            global: global.clone(),
            look,
            served: RefCell::default(),
        })
    }

    /// The page of a stage, and the source that its votes are.
    fn open(
        &self,
        stage: usize,
        inputs: &BTreeMap<String, Vec<InputSpec>>,
    ) -> Result<(Assignment, usize), Failure> {
        let pairs = inputs.get("pairs").and_then(|i| i.first()).and_then(|i| i.paths.first());
        let assignment = labelling::assemble(self.project, stage, pairs.map(PathBuf::from))?;
        let graph = &self.project.graph;
        let from = graph.stages[stage].inputs.iter().flat_map(|i| &i.from);
        let mut sources = from.filter_map(|producer| match producer {
            Producer::Source(s) if graph.sources[*s].port_type == votes::PORT_TYPE => Some(*s),
            _ => None,
        });
        let source = sources.next().expect("invariant: the schema asks for votes");
        Ok((assignment, source))
    }
}

impl People for Asking<'_> {
    fn ask(
        &self,
        stage: usize,
        inputs: BTreeMap<String, Vec<InputSpec>>,
        mut leave: watch::Receiver<bool>,
    ) -> Pin<Box<dyn Future<Output = ChangedSources>>> {
        let opened = self.open(stage, &inputs);
        let (assignment, source) = match opened {
            Ok(opened) => opened,
            Err(failure) => {
                complain(&failure.text(self.look));
                return Box::pin(async { None });
            }
        };
        // A page stays until the run is over: who labels need not stop when there is enough.
        let server = self.served.borrow_mut().insert(stage).then(|| self.server(&assignment));
        let store = Arc::clone(&self.project.store);
        let look = self.look;
        Box::pin(async move {
            if let Some(server) = server {
                tokio::task::spawn_local(server);
            }
            tokio::select! {
                content = enough(&assignment, look) => {
                    Some(vec![(source, store.digest_content(content))])
                }
                _ = leave.wait_for(|leave| *leave) => None,
            }
        })
    }
}

impl Asking<'_> {
    /// The label page of an assignment, until it is dropped. Where there can be none, votes may
    /// still come from elsewhere.
    fn server(&self, assignment: &Assignment) -> impl Future<Output = ()> + 'static {
        let opened = folder(self.project).and_then(|folder| {
            let session = open_session(assignment.clone(), Some(folder.clone()))?;
            Ok((Arc::new(session), self.page.options(folder)?))
        });
        let (look, global, page) = (self.look, self.global.clone(), self.page.clone());
        async move {
            let served = match opened {
                Ok((session, options)) => {
                    let shown = Arc::clone(&session);
                    let ready = move |links: &Links| announce(&shown, links, &page, &global, look);
                    let forever = std::future::pending();
                    label::serve(session, options, ready, forever).await.map_err(not_served)
                }
                Err(failure) => Err(failure),
            };
            if let Err(failure) = served {
                complain(&failure.text(look));
                complain(
                    "  = the run goes on when there are enough votes, wherever they come from\n",
                );
            }
        }
    }
}

/// Ends when there are enough votes, with what they amount to.
async fn enough(assignment: &Assignment, look: OutputStyle) -> Vec<u8> {
    let mut seen = None;
    let mut told = None;
    loop {
        let stamps = FolderSnapshot::of(&assignment.votes).ok();
        if seen.as_ref() != Some(&stamps) {
            seen = Some(stamps);
            // What cannot be read now is told by the page, and may be mended meanwhile.
            if let Ok(folder) = Folder::read(&assignment.votes) {
                let effective = Effective::of(&folder);
                let ready = label::readiness(assignment, &effective);
                if ready.ready {
                    return effective.to_bytes();
                }
                let why = super::stats::outlook(assignment, &ready).and_then(|o| o.why());
                if let Some(why) = why.as_ref().filter(|why| told.as_ref() != Some(*why)) {
                    let mark = look.paint(Style::Warning, "◌");
                    complain(&format!(" {mark} {}  {why}\n", assignment.stage));
                }
                told = why;
            }
        }
        tokio::time::sleep(LOOK_AFTER).await;
    }
}
