using PeftServer.Engine.Adapters.Prompts;
using PeftServer.Engine.Adapters.PromptTuning;
using PeftServer.Engine.Models;
using PeftServer.Engine.Weights;

namespace PeftServer.Engine.Adapters.MultitaskPromptTuning;

/// <summary>Rows that all tasks share, and a low-rank factor for each task. All of it is saved.</summary>
internal sealed class MultitaskEncoder(MultitaskPromptTuningConfig config) : TableEncoder(
    config.NumVirtualTokens * config.NumTransformerSubmodules!.Value, config.TokenDim!.Value,
    (table, model, generator) => PromptInit.Draw(table, Start(config.PromptTuningInit), config.PromptTuningInitText, model, generator))
{
    private readonly Weight _columns =
        new(config.NumTasks, config.NumVirtualTokens * config.NumTransformerSubmodules!.Value, config.NumRanks) { Trainable = true };

    private readonly Weight _rows = new(config.NumTasks, config.NumRanks, config.TokenDim!.Value) { Trainable = true };

    public override IEnumerable<(string Name, Weight Weight)> Weights => [("prefix_task_cols", _columns), ("prefix_task_rows", _rows), .. base.Weights];

    public override IEnumerable<(string Key, Weight Weight)> Companions => [("prefix_task_cols", _columns), ("prefix_task_rows", _rows)];

    public override Tensor ForTask(Tensor rows, int task)
    {
        if (task < 0 || task >= config.NumTasks)
        {
            throw new AdapterException("task_id", $"There is no task {task}: the adapter has {config.NumTasks}, counted from 0.");
        }

        using var scope = NewDisposeScope();
        var own = _columns.Value.select(0, task).mm(_rows.Value.select(0, task)); // [rows, width]
        return rows.mul(own).MoveToOuterDisposeScope();
    }

    private static PromptTuningInit Start(MultitaskPromptTuningInit init) => init switch
    {
        MultitaskPromptTuningInit.Text => PromptTuningInit.Text,
        MultitaskPromptTuningInit.SampleVocab => PromptTuningInit.SampleVocab,
        _ => PromptTuningInit.Random,
    };

    public override void Initialize(PretrainedModel model, Generator generator)
    {
        base.Initialize(model, generator);
        _columns.Normal(0.02, generator, model.Device);
        _rows.Normal(0.02, generator, model.Device);
    }
}
