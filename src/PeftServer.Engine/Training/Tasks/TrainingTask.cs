using System.Text.Json;
using PeftServer.Engine.Models;
using PeftServer.Engine.Native;
using PeftServer.Engine.Training.Objectives;

namespace PeftServer.Engine.Training.Tasks;

/// <summary>What a run learns from the rows of a file: makes micro-batches of them, and gradients of those.</summary>
internal abstract class TrainingTask : IDisposable
{
    /// <summary>Rows, as batches count them: several documents where they are packed.</summary>
    public abstract int Rows { get; }

    /// <summary>Tokens of a row, about: for finding the longest.</summary>
    public abstract int Tokens(int row);

    /// <summary>Whether the rows of a micro-batch may go through the model in parts: nothing compares them with each other.</summary>
    public virtual bool CanSplit => true;

    /// <summary>Whether its gradients come from autograd, which can compute activations again instead of keeping them.</summary>
    public virtual bool UsesAutograd => true;

    /// <summary>Lines of the file that a row is of.</summary>
    public abstract IEnumerable<long> Lines(int row);

    /// <summary>The micro-batches of a step, each of the rows with these numbers. What is drawn follows from <paramref name="seed"/>.</summary>
    public abstract IReadOnlyList<MicroBatch> Window(IReadOnlyList<int[]> rows, ulong seed);

    /// <summary>Loss and metrics of some rows without gradients, as means, and what they weigh among those of other rows.</summary>
    public abstract (ObjectiveResult Result, double Weight) Evaluate(int[] rows);

    /// <summary>What is no mean over batches (F1, exact match), over all rows evaluated since the last call.</summary>
    public virtual IReadOnlyDictionary<string, double> EvaluationScores() => new Dictionary<string, double>();

    /// <summary>What a resumed run needs of this task beside the step; null where that says all. Setting it goes on from there.</summary>
    public virtual JsonElement? Progress
    {
        get => null;
        set { }
    }

    /// <summary>Says that an optimizer has changed the trained weights.</summary>
    public virtual void AdapterChanged()
    {
    }

    public virtual void Dispose()
    {
    }

    /// <summary>Adds the gradients of <paramref name="share"/> · loss; gives the shares of loss and metrics, without gradients.</summary>
    protected static ObjectiveResult Backward(ObjectiveResult result, double share)
    {
        using var scope = NewDisposeScope();
        var loss = result.Loss.Times(share);
        GradientCheckpoints.Backward(loss);
        return new ObjectiveResult(loss.detach(), result.Metrics.ToDictionary(metric => metric.Key, metric => metric.Value.Times(share))).MoveToOuterDisposeScope();
    }
}

/// <summary>Rows that go through the model together. What the micro-batches of a step give adds up to the step's loss and metrics.</summary>
/// <param name="Shape">What goes through the model.</param>
/// <param name="ForwardBackward">Adds this micro-batch's gradients; takes what draws dropout.</param>
internal sealed record MicroBatch(BatchShape Shape, Func<Generator?, ObjectiveResult> ForwardBackward);
