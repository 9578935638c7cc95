using PeftServer.Engine.Training.Tasks;

namespace PeftServer.Engine.Training;

/// <summary>
/// Evaluates a task on all its rows: means that weigh every row or target alike, and what is no mean. Where a batch does not fit into memory, it and all later ones are
/// smaller; the means are of the rows, however they are cut.
/// </summary>
internal sealed class Evaluator(TrainingTask task, int batchSize, EventLog events, TrainerControl control, TimeProvider clock)
{
    /// <summary>How long an evaluation runs before the log says how far it is, and then between two such lines.</summary>
    private static readonly TimeSpan BetweenReports = TimeSpan.FromSeconds(10);

    private int _rowsAtOnce = batchSize;

    /// <summary>Called before each batch with its rows; tests have memory run out here.</summary>
    public Action<int>? BeforeBatch { get; init; }

    /// <summary>The values by name; what had been read when a cancel came.</summary>
    public Dictionary<string, double> Run()
    {
        using var frozen = no_grad();
        var (sums, total) = (new Dictionary<string, double>(), 0.0);
        var (started, reported) = (clock.GetTimestamp(), TimeSpan.Zero);
        for (var start = 0; start < task.Rows && control.Request is not StopRequest.Cancel;)
        {
            int[] rows = [.. Enumerable.Range(start, Math.Min(_rowsAtOnce, task.Rows - start))];
            try
            {
                total += Add(rows, sums);
                start += rows.Length;
                if (clock.GetElapsedTime(started) is var elapsed && elapsed - reported >= BetweenReports && start < task.Rows)
                {
                    reported = elapsed;
                    var left = TimeSpan.FromSeconds(Math.Ceiling(elapsed.TotalSeconds / start * (task.Rows - start)));
                    events.Message(FormattableString.Invariant($"Evaluated {start} of {task.Rows} validation rows; about {left} left."));
                }
            }
            catch (Exception e) when (StepRunner.IsOutOfMemory(e))
            {
                Shrink(e, rows.Length);
            }
        }

        var means = sums.ToDictionary(sum => sum.Key, sum => sum.Value / total);
        foreach (var (name, value) in task.EvaluationScores())
        {
            means[name] = value;
        }

        if (task is SupervisedTask or Seq2SeqTask)
        {
            means["perplexity"] = Math.Exp(means[MetricTotals.Loss]);
        }

        return means;
    }

    /// <summary>Adds a batch, all of it or nothing; gives its weight.</summary>
    private double Add(int[] rows, Dictionary<string, double> sums)
    {
        BeforeBatch?.Invoke(rows.Length);
        using var scope = NewDisposeScope();
        var (result, weight) = task.Evaluate(rows);
        foreach (var (name, value) in result.Metrics.Append(new(MetricTotals.Loss, result.Loss)).Select(each => (each.Key, each.Value.item<float>())).ToList())
        {
            sums[name] = sums.GetValueOrDefault(name) + (weight * value);
        }

        return weight;
    }

    private void Shrink(Exception e, int rows)
    {
        StepRunner.RefuseSplit(e, rows, task.CanSplit, "A batch of the evaluation");
        _rowsAtOnce = (rows + 1) / 2;
        events.Message($"A batch of {rows} rows of the evaluation does not fit into memory; from here on it is {_rowsAtOnce}. Its means are the same.", TrainingEventLevel.Warn);
    }
}
