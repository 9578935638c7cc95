using PeftServer.Engine.Adapters;
using PeftServer.Engine.Data;
using PeftServer.Engine.Models;
using PeftServer.Engine.Tokenizers;
using PeftServer.Engine.Training.Objectives;

namespace PeftServer.Engine.Training.Tasks;

/// <summary>Reads the files of a run into what its method learns from.</summary>
internal sealed class TrainingTasks(TrainingSpec spec, EventLog events, CausalLanguageModel model, Adapter adapter)
{
    private readonly Tokenizer _tokenizer = Tokenizer.Load(spec.Model);

    /// <summary>Tokens of a row that are kept: virtual tokens before it take their part of what the model can.</summary>
    private int MaxLength => model.MaxLength - adapter.VirtualTokens is var room && room > 1
        ? Math.Min(spec.Training.MaxLength ?? int.MaxValue, room)
        : throw new TrainingException($"peft.num_virtual_tokens: {adapter.VirtualTokens} virtual tokens leave no room in the {model.MaxLength} that the model takes. Use fewer.");

    /// <summary>
    /// The task of a file, which <paramref name="trains"/> or is evaluated only. Throws <see cref="TrainingException"/> where nothing can be
    /// learnt from it.
    /// </summary>
    public TrainingTask Read(string path, bool trains)
    {
        var options = new TrainingDataOptions { MaxLength = MaxLength };
        switch (spec.Method.Settings)
        {
            case SftSettings settings:
                var data = TrainingData.Read(path, _tokenizer, options);
                Account(path, data.Summary, data.Rows.Count);
                CheckTasks(path, data.Rows);
                return new SupervisedTask(Rows(data), trains ? Step(settings) : new AutogradStep(model, adapter, settings), model, adapter, settings);
            case KtoSettings settings:
                var judged = Preferences(path, options);
                IReadOnlyList<JudgedRow> rows = [.. judged.Judged, .. PreferenceRow.ToJudged(judged.Pairs)];
                Account(path, judged.Summary, rows.Count);
                return new JudgedTask(rows, MaxLength, model, adapter, settings);
            case var settings:
                var pairs = Preferences(path, options);
                Account(path, pairs.Summary, pairs.Pairs.Count);
                return new PreferenceTask(pairs.Pairs, MaxLength, model, adapter, settings);
        }
    }

    private void CheckTasks(string path, IReadOnlyList<TrainingRow> rows)
    {
        if (spec.Peft is IKnowsTasks && rows.FirstOrDefault(row => IKnowsTasks.Fault(spec.Peft, row.Task) is not null) is { } wrong)
        {
            throw new TrainingException($"{Path.GetFileName(path)}, line {wrong.Line}, task_id: {IKnowsTasks.Fault(spec.Peft, wrong.Task)}");
        }
    }

    private ITrainingStep Step(SftSettings settings) =>
        TrainingSteps.Create(model, adapter, model.Device, spec.Training, spec.Peft, settings, message => events.Message(message));

    private IReadOnlyList<TrainingRow[]> Rows(TrainingData data)
    {
        if (!spec.Training.Packing)
        {
            return [.. data.Rows.Select(row => new[] { row })];
        }

        var length = spec.Training.MaxLength ?? data.Summary.LongestRow;
        var packed = SupervisedTask.Pack(data.Rows, length);
        events.Message($"Packed {data.Rows.Count} rows into {packed.Count} of up to {length} tokens.");
        return packed;
    }

    private PreferenceData Preferences(string path, TrainingDataOptions options)
    {
        using var stream = File.OpenRead(path);
        return PreferenceData.Read(stream, _tokenizer, options);
    }

    private void Account(string path, DataSummary summary, int usable)
    {
        events.Message(
            $"{Path.GetFileName(path)}: {summary.Rows} rows, {summary.Used} used, {summary.Cut} cut, {summary.Skipped} skipped; "
            + $"{summary.Tokens} tokens, {summary.TrainedTokens} of them trained.", summary.Skipped > 0 ? TrainingEventLevel.Warn : TrainingEventLevel.Info);
        if (usable == 0 || summary.TrainedTokens == 0)
        {
            var reason = summary.Reasons.OrderByDescending(each => each.Value).Select(each => $" Most often: {each.Key}").FirstOrDefault();
            throw new TrainingException($"{Path.GetFileName(path)} has no token to learn from: {summary.Skipped} of {summary.Rows} rows were skipped.{reason}");
        }
    }
}
