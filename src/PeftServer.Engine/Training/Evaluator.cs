using PeftServer.Engine.Training.Tasks;

namespace PeftServer.Engine.Training;

/// <summary>Evaluates a task on all its rows: means that weigh every row or target alike, and what is no mean.</summary>
internal sealed class Evaluator(TrainingTask task, int batchSize, TrainerControl control, EventLog events, TimeProvider clock)
{
    /// <summary>How long an evaluation runs before the log says how far it is, and then between two such lines.</summary>
    private static readonly TimeSpan BetweenReports = TimeSpan.FromSeconds(10);

    /// <summary>The values by name; what had been read when a cancel came.</summary>
    public Dictionary<string, double> Run()
    {
        using var frozen = no_grad();
        var (sums, total) = (new Dictionary<string, double>(), 0.0);
        var (started, done, reported) = (clock.GetTimestamp(), 0, TimeSpan.Zero);
        foreach (var rows in Enumerable.Range(0, task.Rows).Chunk(batchSize))
        {
            using var scope = NewDisposeScope();
            var (result, weight) = task.Evaluate(rows);
            foreach (var (name, value) in result.Metrics.Append(new(MetricTotals.Loss, result.Loss)))
            {
                sums[name] = sums.GetValueOrDefault(name) + (weight * value.item<float>());
            }

            total += weight;
            done += rows.Length;
            if (clock.GetElapsedTime(started) is var elapsed && elapsed - reported >= BetweenReports && done < task.Rows)
            {
                reported = elapsed;
                var left = TimeSpan.FromSeconds(Math.Ceiling(elapsed.TotalSeconds / done * (task.Rows - done)));
                events.Message(FormattableString.Invariant($"Evaluated {done} of {task.Rows} validation rows; about {left} left."));
            }

            if (control.Request is StopRequest.Cancel)
            {
                break;
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
}
