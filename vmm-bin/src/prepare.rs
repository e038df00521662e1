//! What comes before a machine: the config is read, files are opened, the plan is made.

use std::path::Path;
use std::sync::Arc;

use vmm_config::{Config, ConfigFile, FlagFields};
use vmm_machine::{ConfigInUse, Inputs, Messages, MetricsFile, OutputCheck, Plan, Progress, StreamsInUse};

use crate::args::Args;
use crate::descriptors::{self, Inherited};
use crate::finish::{Failure, Origin};
use crate::kinds::KINDS;
use crate::streams::Streams;
use crate::{inputs, log};

/// A config, and where its fields came from.
pub(crate) struct ReadConfig {
    pub(crate) config: Config,
    pub(crate) origin: Origin,
    /// As long as the machine is there, and others that are made from the file.
    _in_use: Option<ConfigInUse>,
}

impl ReadConfig {
    /// By the file and the flags.
    pub(crate) fn new(args: &Args, inherited: Inherited, streams: &Streams) -> Result<Self, Failure> {
        args.bare().check(&args.given_files())?;
        let file = args.config.as_deref().map(ConfigFile::read).transpose()?.unwrap_or_default();
        streams.protect(inputs::named_by(&file));
        let in_use = args.config.as_deref().map(ConfigInUse::note);
        let overrides = args.overrides()?;
        let origin = Origin { file: file.origin.clone(), flags: FlagFields::new(&file, &overrides) };
        let config = file.merge(overrides)?;
        inherited.close_unnamed(&config, std::env::args_os());
        Ok(Self { config, origin, _in_use: in_use })
    }

    /// What would be built of it, as text. Nothing of the host is changed.
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

/// What a machine needs to run. All that may have to wait for a slow file is done.
pub(crate) struct Prepared {
    pub(crate) config: Arc<Config>,
    pub(crate) origin: Origin,
    pub(crate) opened: Opened,
    /// As long as the machine is there.
    pub(crate) _in_use: Option<ConfigInUse>,
}

/// What a config names, and the plan that was made around it.
pub(crate) struct Opened {
    pub(crate) plan: Plan,
    pub(crate) inputs: Inputs,
    pub(crate) metrics: Option<MetricsFile>,
    pub(crate) log: Option<Messages>,
    /// As long as the machine is there.
    pub(crate) _streams_in_use: StreamsInUse,
}

impl Prepared {
    /// Says by `progress` what it is doing.
    pub(crate) fn new(
        args: &Args,
        inherited: Inherited,
        streams: &Streams,
        progress: &Progress,
    ) -> Result<Self, Failure> {
        let reading = progress.begin("reading the config".to_owned());
        let ReadConfig { config, origin, _in_use } = ReadConfig::new(args, inherited, streams)?;
        drop(reading);
        let _opening = progress.begin("opening the files of the config".to_owned());
        match Opened::new(args, &config, streams) {
            Ok(opened) => Ok(Self { config: Arc::new(config), origin, opened, _in_use }),
            Err(failure) => Err(failure.of_config(origin)),
        }
    }
}

impl Opened {
    fn new(args: &Args, config: &Config, streams: &Streams) -> Result<Self, Failure> {
        descriptors::raise_limit();
        let mut inputs = Inputs::open(config, &KINDS)?;
        // What only the devices know is locked now, such as the files below an image.
        streams.protect([]);
        let outputs = check_outputs(args, config, &inputs)?;
        let plan = Plan::new(config, &mut inputs)?;
        let _streams_in_use = outputs.note_streams().map_err(Failure::Stream)?;
        // In the order of the check.
        let metrics = args.metrics.as_deref().map(metrics).transpose()?;
        let log = log::init(args, streams)?;
        Ok(Self { plan, inputs, metrics, log, _streams_in_use })
    }
}

fn metrics(path: &Path) -> Result<MetricsFile, Failure> {
    MetricsFile::create(path).map_err(|source| Failure::Metrics { path: path.to_owned(), source })
}

/// Refuses files that can't be written, before one of them is made or changed.
fn check_outputs(args: &Args, config: &Config, inputs: &Inputs) -> Result<OutputCheck, Failure> {
    let mut outputs = OutputCheck::default();
    if let Some(path) = &args.metrics {
        outputs.metrics(path).map_err(|source| Failure::Metrics { path: path.clone(), source })?;
    }
    if let Some(path) = &args.log_file {
        outputs.log(path).map_err(|source| Failure::LogFile { path: path.clone(), source })?;
    }
    outputs.consoles(config, inputs)?;
    Ok(outputs)
}
