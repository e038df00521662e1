//! The state of a console.

use vmm_virtio::{FieldReader, FieldWriter, INPUT_MAX, Persistent, State, StateError, TerminalSize};

use super::{Console, Partial};

/// Its size, the input that the guest hasn't taken, and how much of a long chain has been sent. Output that the host hasn't taken isn't
/// here: it is the source's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsoleState {
    size: TerminalSize,
    input: Vec<u8>,
    partial: Option<Partial>,
}

impl State for ConsoleState {
    const KIND: &'static str = "virtio.console";
    const VERSION: u16 = 1;

    fn save(&self, fields: &mut FieldWriter) {
        fields.u16(self.size.columns);
        fields.u16(self.size.rows);
        fields.bytes(&self.input);
        fields.option(self.partial, |fields, partial| {
            fields.u16(partial.head);
            fields.option(partial.gpa, FieldWriter::u64);
            fields.u64(partial.len);
            fields.u64(partial.gone);
        });
    }

    fn load(_version: u16, fields: &mut FieldReader<'_>) -> Result<Self, StateError> {
        Ok(Self {
            size: TerminalSize { columns: fields.u16("columns")?, rows: fields.u16("rows")? },
            input: fields.bytes("input", INPUT_MAX)?.to_vec(),
            partial: fields.option("partial", partial)?,
        })
    }
}

fn partial(fields: &mut FieldReader<'_>) -> Result<Partial, StateError> {
    let partial = Partial {
        head: fields.u16("head")?,
        gpa: fields.option("gpa", |fields| fields.u64("address"))?,
        len: fields.u64("len")?,
        gone: fields.u64("gone")?,
    };
    // The rest of a chain is sent from there.
    if partial.gone >= partial.len {
        return Err(StateError::new("gone", format!("{} isn't less than {}", partial.gone, partial.len)));
    }
    Ok(partial)
}

impl Persistent for Console {
    type State = ConsoleState;

    fn save(&mut self) -> Result<ConsoleState, String> {
        Ok(ConsoleState { size: self.port.size(), input: self.port.input(), partial: self.partial })
    }

    fn load(&mut self, state: ConsoleState) -> Result<(), StateError> {
        if state.size != self.port.size() {
            self.port.resize(state.size);
        }
        self.port.put_input(&state.input);
        self.partial = state.partial;
        Ok(())
    }
}
