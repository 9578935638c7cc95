using PeftServer.Engine.Adapters;
using PeftServer.Engine.Data;
using PeftServer.Engine.Models;
using PeftServer.Engine.Tokenizers;
using PeftServer.Engine.Training.Objectives;

namespace PeftServer.Engine.Training.Tasks;

/// <summary>Reads what a method looks at before it starts: the first rows of the run's training file, of pairs the chosen answers.</summary>
internal static class CalibrationRows
{
    private const int MaxRows = 1024; // no start wants more

    /// <summary>Rows in batches of the run's size. Throws <see cref="TrainingException"/> where the file has none that can be used.</summary>
    public static CalibrationData Read(TrainingSpec spec, LanguageModel model)
    {
        var tokenizer = Tokenizer.Load(spec.Model);
        var options = new TrainingDataOptions { MaxLength = Math.Min(spec.Training.MaxLength ?? int.MaxValue, model.MaxLength) };
        var read = spec.Method.Settings switch
        {
            SftSettings => TrainingData.Read(spec.TrainingFile, tokenizer, options).Rows,
            DpoSettings or CpoSettings or OrpoSettings or KtoSettings => Chosen(spec.TrainingFile, tokenizer, options),
            _ => throw new TrainingException("peft.init_lora_weights: a start from data needs training on texts or on preferences among them."),
        };
        var rows = read.Where(row => row.TrainedCount > 0).Take(MaxRows).ToList();
        return rows.Count > 0
            ? new CalibrationData([.. rows.Chunk(spec.Training.PerDeviceTrainBatchSize)])
            : throw new TrainingException($"{Path.GetFileName(spec.TrainingFile)} has no row that peft.init_lora_weights could start from.");
    }

    private static List<TrainingRow> Chosen(string path, Tokenizer tokenizer, TrainingDataOptions options)
    {
        using var stream = File.OpenRead(path);
        var data = PreferenceData.Read(stream, tokenizer, options);
        return
        [
            .. data.Pairs.Select(pair => (Row: pair.Chosen(options.MaxLength), pair.Line)).Select(entry => new TrainingRow(entry.Row.Ids, entry.Row.Trained, entry.Line)),
            .. data.Judged.Where(row => row.Label).Select(row => (Row: row.Completion(options.MaxLength), row.Line)).Select(entry => new TrainingRow(entry.Row.Ids, entry.Row.Trained, entry.Line)),
        ];
    }
}
