namespace PeftServer.Engine.Training;

/// <summary>How gradients are made: by autograd over the model's own code, or by the hand-written step where it applies.</summary>
internal interface ITrainingStep : IDisposable
{
    /// <summary>For the event log: which way this is.</summary>
    string Description { get; }

    /// <summary>
    /// Adds the gradients of scale · (sum of −log p over the targets) to those of the trained weights. Gives that sum, unscaled, and how
    /// many targets the model would have chosen; scalars on the device.
    /// </summary>
    (Tensor Loss, Tensor Correct) ForwardBackward(SftBatch batch, double scale, Generator? dropout);

    /// <summary>Says that an optimizer has changed the trained weights.</summary>
    void AdapterChanged();
}
