using PeftServer.Engine.Training.Tasks;

namespace PeftServer.Engine.Training;

/// <summary>Evaluates a task on all its rows: means that weigh every row or target alike, and what is no mean.</summary>
internal sealed class Evaluator(TrainingTask task, int batchSize, TrainerControl control)
{
    /// <summary>The values by name; what had been read when a cancel came.</summary>
    public Dictionary<string, double> Run()
    {
        using var frozen = no_grad();
        var (sums, total) = (new Dictionary<string, double>(), 0.0);
        foreach (var rows in Enumerable.Range(0, task.Rows).Chunk(batchSize))
        {
            using var scope = NewDisposeScope();
            var (result, weight) = task.Evaluate(rows);
            foreach (var (name, value) in result.Metrics.Append(new(MetricTotals.Loss, result.Loss)))
            {
                sums[name] = sums.GetValueOrDefault(name) + (weight * value.item<float>());
            }

            total += weight;
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
