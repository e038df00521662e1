//! Preparation of a machine: reads the config, opens files and makes the plan.

use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use vmm_config::{Config, ConfigFile, ConfigText, FlagFields, Overrides};
use vmm_machine::{
    About, ConfigInUse, Inputs, Messages, MetricsFile, OutputCheck, Plan, Progress, Restore, StreamsInUse,
};

use crate::args::Args;
use crate::descriptors::{self, Inherited};
use crate::finish::{Failure, Origin};
use crate::kinds::KINDS;
use crate::streams::Streams;
use crate::{control, inputs, log, restore};

/// A config, and where its fields were set.
pub(crate) struct ReadConfig {
    pub(crate) config: Config,
    pub(crate) origin: Origin,
    /// Where relative paths of the config start.
    directory: PathBuf,
    /// Marks the config file as in use while the machine, or one that follows it after a reset, exists.
    in_use: Option<ConfigInUse>,
    /// The snapshot that the config is of, if a machine is restored.
    restore: Option<Restore>,
}

impl ReadConfig {
    /// Reads the config file, if there is one, and merges the flags.
    ///
    /// Descriptors that neither names are closed.
    pub(crate) fn new(args: &Args, inherited: Inherited, streams: &Streams) -> Result<Self, Failure> {
        if let Some(args) = args.restore() {
            let (file, restore) = restore::open(args)?;
            let named = Some(args.config_file());
            let read = Self::merged((file, named), args.run.overrides()?, None, inherited)?;
            return Ok(Self { restore: Some(restore), ..read });
        }
        args.bare().check(&args.given_files())?;
        let file = args.config.as_deref().map(ConfigFile::read).transpose()?.unwrap_or_default();
        streams.protect(inputs::named_by(&file));
        let in_use = args.config.as_deref().map(ConfigInUse::note);
        let named = file.origin.clone();
        Self::merged((file, named), args.overrides()?, in_use, inherited)
    }

    fn merged(
        (file, named): (ConfigFile, Option<PathBuf>),
        overrides: Overrides,
        in_use: Option<ConfigInUse>,
        inherited: Inherited,
    ) -> Result<Self, Failure> {
        let directory = std::path::absolute(file.directory().join(".")).unwrap_or_else(|_| file.directory());
        let text = file.origin.as_deref().map(ConfigText::read).unwrap_or_default();
        let origin = Origin { file: named, text, flags: FlagFields::new(&file, &overrides) };
        let config = file.merge(overrides)?;
        inherited.close_unnamed(&config, std::env::args_os());
        Ok(Self { config, origin, directory, in_use, restore: None })
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
    pub(crate) about: About,
    pub(crate) restore: Option<Restore>,
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
        let ReadConfig { config, origin, directory, in_use, restore } =
            ReadConfig::new(args, inherited, streams)?;
        drop(reading);
        let _opening = progress.begin("opening the files of the config".to_owned());
        let about = about(&config, directory, restore.as_ref());
        match Opened::new(args, &config, streams, restore.as_ref()) {
            Ok(opened) => Ok(Self { config: Arc::new(config), origin, about, restore, opened, in_use }),
            Err(failure) => Err(failure.of_config(&origin)),
        }
    }
}

impl Opened {
    fn new(
        args: &Args,
        config: &Config,
        streams: &Streams,
        restore: Option<&Restore>,
    ) -> Result<Self, Failure> {
        descriptors::raise_limit();
        let mut inputs = match restore {
            Some(_) => Inputs::open_to_restore(config, &KINDS)?,
            None => Inputs::open(config, &KINDS)?,
        };
        // Files that only the devices know, such as those below an image, are locked by now.
        streams.protect([]);
        let outputs = check_outputs(args, config, &inputs)?;
        let plan = match restore {
            Some(restore) => Plan::restored(config, &inputs, restore)?,
            None => Plan::new(config, &mut inputs)?,
        };
        let streams_in_use = outputs.note_streams().map_err(Failure::Stream)?;
        // In the same order as in `check_outputs`, so that both reject the same file.
        let metrics = args.run().metrics.as_deref().map(metrics).transpose()?;
        let log = log::init(args, streams)?;
        let socket = config.control.as_ref().map(|path| control::listen(path.as_path())).transpose()?;
        let has_keys = plan.is_on_stdio() && io::stdin().is_terminal();
        Ok(Self { plan, inputs, metrics, log, socket, streams_in_use, has_keys })
    }
}

/// What a snapshot of this machine says of it.
fn about(config: &Config, directory: PathBuf, restore: Option<&Restore>) -> About {
    About {
        program: env!("CARGO_PKG_NAME").to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        parent: restore.map(Restore::id),
        ..About::new(config, directory)
    }
}

fn metrics(path: &Path) -> Result<MetricsFile, Failure> {
    MetricsFile::create(path).map_err(|source| Failure::Metrics { path: path.to_owned(), source })
}

/// Checks that all output files can be written, before any of them is created or changed.
fn check_outputs(args: &Args, config: &Config, inputs: &Inputs) -> Result<OutputCheck, Failure> {
    let mut outputs = OutputCheck::default();
    if let Some(path) = &args.run().metrics {
        outputs.metrics(path).map_err(|source| Failure::Metrics { path: path.clone(), source })?;
    }
    if let Some(path) = &args.run().log_file {
        outputs.log(path).map_err(|source| Failure::LogFile { path: path.clone(), source })?;
    }
    if let Some(path) = &config.control {
        control::check(path.as_path(), &mut outputs)?;
    }
    outputs.consoles(config, inputs)?;
    Ok(outputs)
}
