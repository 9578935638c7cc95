namespace PeftServer.Engine.Training;

/// <summary>Which evaluation was the best, and whether it is worth going on.</summary>
internal sealed class BestModel(TrainingArguments arguments, TrainingState state)
{
    private readonly bool _greaterIsBetter = arguments.GreaterIsBetter ?? !(NameOf(arguments).EndsWith("loss", StringComparison.Ordinal) || NameOf(arguments) == "perplexity");

    public double? Metric { get; private set; } = state.BestMetric;

    public int Step { get; private set; } = state.BestStep;

    public int EvaluationsWithoutGain { get; private set; } = state.EvaluationsWithoutGain;

    /// <summary>The metric that decides, without the prefix that transformers gives it.</summary>
    public string Name { get; } = NameOf(arguments);

    /// <summary>So many evaluations without gain as <c>early_stopping_patience</c> allows.</summary>
    public bool IsStale => arguments.EarlyStoppingPatience is { } patience && EvaluationsWithoutGain >= patience;

    /// <summary>Whether this evaluation is the best so far. Throws where the metric is not among its values.</summary>
    public bool Observe(IReadOnlyDictionary<string, double> evaluated, int step)
    {
        if (!evaluated.TryGetValue(Name, out var value))
        {
            throw new TrainingException($"metric_for_best_model: '{Name}' is not evaluated. There are {string.Join(", ", evaluated.Keys.Order(StringComparer.Ordinal))}.");
        }

        var gain = Metric is not { } best ? double.PositiveInfinity : _greaterIsBetter ? value - best : best - value;
        EvaluationsWithoutGain = gain > arguments.EarlyStoppingThreshold ? 0 : EvaluationsWithoutGain + 1;
        if (!(gain > 0))
        {
            return false;
        }

        (Metric, Step) = (value, step);
        return true;
    }

    private static string NameOf(TrainingArguments arguments)
    {
        var name = arguments.MetricForBestModel ?? MetricTotals.Loss;
        return name.StartsWith("eval_", StringComparison.Ordinal) ? name[5..] : name.StartsWith("valid_", StringComparison.Ordinal) ? name[6..] : name;
    }
}
