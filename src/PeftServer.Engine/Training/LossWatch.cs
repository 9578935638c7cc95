namespace PeftServer.Engine.Training;

/// <summary>Watches the losses of the steps for what no run recovers from.</summary>
internal sealed class LossWatch(double spikeFactor, IReadOnlyList<double> recent)
{
    /// <summary>Steps that are compared with, and how many there must be before a loss is called a spike.</summary>
    private const int Remembered = 50, Least = 10;

    /// <summary>A loss below it counts as this: where nearly all is learnt, one hard row is many times the median, and no harm.</summary>
    private const double Floor = 0.1;

    private readonly Queue<double> _recent = new(recent);

    public IReadOnlyList<double> Recent => [.. _recent];

    /// <summary>What is wrong with the loss of a step; null when nothing is.</summary>
    public string? Fault(double loss)
    {
        if (!double.IsFinite(loss))
        {
            return $"is {loss}";
        }

        var median = _recent.Order().ElementAtOrDefault(_recent.Count / 2);
        var isSpike = spikeFactor > 0 && _recent.Count >= Least && loss > spikeFactor * Math.Max(median, Floor);
        if (isSpike)
        {
            return FormattableString.Invariant($"is {loss:G4}, {loss / median:G3} times the median of the {_recent.Count} steps before ({median:G4})");
        }

        _recent.Enqueue(loss);
        if (_recent.Count > Remembered)
        {
            _recent.Dequeue();
        }

        return null;
    }
}
