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
        if (config.SourceFile is { } path)
        {
            using var source = SafetensorsFile.Open(File.Exists(path) ? path : throw Unfit($"There is no file {path}."));
            Table.Set(Taken(source, "prompt_embeddings", Table).to(model.Device));
            if (config.PromptTuningInit is not MultitaskPromptTuningInit.OnlySourceShared)
            {
                _columns.Set(Taken(source, "prefix_task_cols", _columns).to(model.Device));
                _rows.Set(Taken(source, "prefix_task_rows", _rows).to(model.Device));
            }
        }
    }

    /// <summary>What <paramref name="weight"/> starts as: a tensor of the source; of those that each task has its own of, a task's or their mean.</summary>
    private Tensor Taken(SafetensorsFile source, string name, Weight weight)
    {
        if (!source.Header.Entries.TryGetValue(name, out var entry))
        {
            throw Unfit($"It has no {name}, so it is no prompt that this one can start from.");
        }

        var perTask = entry.Shape.Count == 3;
        if (!entry.Shape.Skip(perTask ? 1 : 0).SequenceEqual(weight.Shape.Skip(perTask ? 1 : 0)))
        {
            throw Unfit($"Its {name} is [{string.Join(", ", entry.Shape)}], which does not fit [{string.Join(", ", weight.Shape)}]: give both as many virtual tokens and ranks, on the same base.");
        }

        var stored = source.Tensor(name).to(ScalarType.Float32, copy: true);
        if (!perTask)
        {
            return stored;
        }

        if (config.PromptTuningInit is MultitaskPromptTuningInit.AverageSourceTasks)
        {
            return stored.mean([0], keepdim: true);
        }

        return config.PromptTuningInitTask < entry.Shape[0]
            ? stored.narrow(0, config.PromptTuningInitTask, 1).clone()
            : throw new AdapterException("prompt_tuning_init_task", $"The prompt to start from has {entry.Shape[0]} tasks, counted from 0.");
    }

    private static AdapterException Unfit(string why) => new("prompt_tuning_init_state_dict_path", why);
}
