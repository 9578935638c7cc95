namespace PeftServer.Engine.Training.Objectives;

/// <summary>
/// What an objective makes of a batch: a loss with gradients, and what is told about it. All are float32 scalars on the device;
/// metrics have no gradients.
/// </summary>
internal sealed record ObjectiveResult(Tensor Loss, IReadOnlyDictionary<string, Tensor> Metrics)
{
    public ObjectiveResult MoveToOuterDisposeScope()
    {
        Loss.MoveToOuterDisposeScope();
        foreach (var metric in Metrics.Values)
        {
            metric.MoveToOuterDisposeScope();
        }

        return this;
    }
}
