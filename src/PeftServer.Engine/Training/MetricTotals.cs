using PeftServer.Engine.Native;
using PeftServer.Engine.Training.Objectives;

namespace PeftServer.Engine.Training;

/// <summary>Adds up what the micro-batches of a step give, on the device, and brings it over at once.</summary>
internal sealed class MetricTotals
{
    public const string Loss = "loss";

    private readonly Dictionary<string, Tensor> _sums = [];

    /// <summary>Adds a micro-batch. The sums live in the scope outside of the present one.</summary>
    public void Add(ObjectiveResult result)
    {
        foreach (var (name, value) in result.Metrics.Prepend(new(Loss, result.Loss)))
        {
            _sums[name] = _sums.TryGetValue(name, out var sum) ? sum.Add(value) : value.detach().clone().MoveToOuterDisposeScope();
        }
    }

    /// <summary>The sums, and the norm of the gradients with them: one wait for the device.</summary>
    public (IReadOnlyDictionary<string, double> Values, double Norm) Read(Tensor norm)
    {
        using var scope = NewDisposeScope();
        var values = stack([.. _sums.Values.Select(sum => sum.to(norm.device)), norm]).cpu().data<float>().ToArray();
        return (_sums.Keys.Zip(values).ToDictionary(pair => pair.First, pair => (double)pair.Second), values[^1]);
    }
}
