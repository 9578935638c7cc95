using PeftServer.Engine.Models;
using PeftServer.Engine.Weights;

namespace PeftServer.Engine.Adapters;

/// <summary>Weights that many parts of one adapter read.</summary>
internal abstract class SharedWeights
{
    /// <summary>What is saved, by the whole key in the file.</summary>
    public abstract IEnumerable<(string Key, Weight Weight)> State { get; }

    /// <summary>What is kept but not saved.</summary>
    public virtual IEnumerable<Weight> Derived => [];

    /// <summary>Draws the weights as the method starts.</summary>
    public abstract void Initialize(PretrainedModel model, Generator generator);

    /// <summary>Computes what is not saved, once what is saved is there.</summary>
    public virtual void Prepare(PretrainedModel model)
    {
    }
}
