//! Preparation of a machine: reads the config, opens files and makes the plan.

use std::io::{self, IsTerminal};
use std::path::Path;
use std::sync::Arc;

use vmm_config::{Config, ConfigFile, ConfigText, FlagFields};
use vmm_machine::{ConfigInUse, Inputs, Messages, MetricsFile, OutputCheck, Plan, Progress, StreamsInUse};

use crate::args::Args;
use crate::descriptors::{self, Inherited};
use crate::finish::{Failure, Origin};
use crate::kinds::KINDS;
use crate::streams::Streams;
use crate::{control, inputs, log};

/// A config, and where its fields were set.
pub(crate) struct ReadConfig {
    pub(crate) config: Config,
    pub(crate) origin: Origin,
    /// Marks the config file as in use while the machine, or one that follows it after a reset, exists.
    in_use: Option<ConfigInUse>,
}

impl ReadConfig {
    /// Reads the config file, if there is one, and merges the flags.
    ///
    /// Descriptors that neither names are closed.
    pub(crate) fn new(args: &Args, inherited: Inherited, streams: &Streams) -> Result<Self, Failure> {
        args.bare().check(&args.given_files())?;
        let file = args.config.as_deref().map(ConfigFile::read).transpose()?.unwrap_or_default();
        streams.protect(inputs::named_by(&file));
        let in_use = args.config.as_deref().map(ConfigInUse::note);
        let overrides = args.overrides()?;
        let text = file.origin.as_deref().map(ConfigText::read).unwrap_or_default();
        let origin = Origin { file: file.origin.clone(), text, flags: FlagFields::new(&file, &overrides) };
        let config = file.merge(overrides)?;
        inherited.close_unnamed(&config, std::env::args_os());
        Ok(Self { config, origin, in_use })
    }

    /// The plan as text. Nothing on the host is changed.
    pub(crate) fn check(&self, args: &Args, streams: &Streams) -> Result<String, Failure> {
        let Self { config, .. } = self;
        let mut inputs = Inputs::look(config, &KINDS)?;
        streams.protect([]);
        let outputs = check_outputs(args, config, &inputs)?;
        let plan = Plan::new(config, &mut inputs)?;
        let _in_use = outputs.note_streams().map_err(Failure::Stream)?;
        Ok(plan.to_string())
    }
}

/// Everything that a machine needs to start. All work that may block on slow storage is done.
pub(crate) struct Prepared {
    pub(crate) config: Arc<Config>,
    pub(crate) origin: Origin,
    pub(crate) opened: Opened,
    /// Marks the config file as in use while the machine exists.
    pub(crate) in_use: Option<ConfigInUse>,
}

/// The open files of a config, and the plan of the machine.
pub(crate) struct Opened {
    pub(crate) plan: Plan,
    pub(crate) inputs: Inputs,
    pub(crate) metrics: Option<MetricsFile>,
    pub(crate) log: Option<Messages>,
    pub(crate) socket: Option<control::Listening>,
    /// Marks the files of the standard streams as in use while the machine exists.
    pub(crate) streams_in_use: StreamsInUse,
    /// Whether the user has keys: a console is on a terminal.
    pub(crate) has_keys: bool,
}

impl Prepared {
    /// Reads the config and opens its files. `progress` names the current step.
    pub(crate) fn new(
        args: &Args,
        inherited: Inherited,
        streams: &Streams,
        progress: &Progress,
    ) -> Result<Self, Failure> {
        let reading = progress.begin("reading the config".to_owned());
        let ReadConfig { config, origin, in_use } = ReadConfig::new(args, inherited, streams)?;
        drop(reading);
        let _opening = progress.begin("opening the files of the config".to_owned());
        match Opened::new(args, &config, streams) {
            Ok(opened) => Ok(Self { config: Arc::new(config), origin, opened, in_use }),
            Err(failure) => Err(failure.of_config(&origin)),
        }
    }
}

impl Opened {
    fn new(args: &Args, config: &Config, streams: &Streams) -> Result<Self, Failure> {
        descriptors::raise_limit();
        let mut inputs = Inputs::open(config, &KINDS)?;
        // Files that only the devices know, such as those below an image, are locked by now.
        streams.protect([]);
        let outputs = check_outputs(args, config, &inputs)?;
        let plan = Plan::new(config, &mut inputs)?;
        let streams_in_use = outputs.note_streams().map_err(Failure::Stream)?;
        // In the same order as in `check_outputs`, so that both reject the same file.
        let metrics = args.metrics.as_deref().map(metrics).transpose()?;
        let log = log::init(args, streams)?;
        let socket = config.control.as_ref().map(|path| control::listen(path.as_path())).transpose()?;
        let has_keys = plan.is_on_stdio() && io::stdin().is_terminal();
        Ok(Self { plan, inputs, metrics, log, socket, streams_in_use, has_keys })
    }
}

fn metrics(path: &Path) -> Result<MetricsFile, Failure> {
    MetricsFile::create(path).map_err(|source| Failure::Metrics { path: path.to_owned(), source })
}

/// Checks that all output files can be written, before any of them is created or changed.
fn check_outputs(args: &Args, config: &Config, inputs: &Inputs) -> Result<OutputCheck, Failure> {
    let mut outputs = OutputCheck::default();
    if let Some(path) = &args.metrics {
        outputs.metrics(path).map_err(|source| Failure::Metrics { path: path.clone(), source })?;
    }
    if let Some(path) = &args.log_file {
        outputs.log(path).map_err(|source| Failure::LogFile { path: path.clone(), source })?;
    }
    if let Some(path) = &config.control {
        control::check(path.as_path(), &mut outputs)?;
    }
    outputs.consoles(config, inputs)?;
    Ok(outputs)
}
