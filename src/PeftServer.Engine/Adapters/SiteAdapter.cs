using PeftServer.Engine.Models;
using PeftServer.Engine.Weights;

namespace PeftServer.Engine.Adapters;

/// <summary>What an adapter does at one site. See <c>SITES.md</c> for how the kinds of methods look in these terms.</summary>
public abstract class SiteAdapter
{
    /// <summary>The weights that are saved, by the name that follows the path of the site in the file: <c>lora_A.weight</c>.</summary>
    public abstract IEnumerable<(string Name, Weight Weight)> State { get; }

    /// <summary>
    /// What a file holds, named like <see cref="State"/>, which it mostly is. Where it is not, loading fills these, and <see cref="Prepare"/> makes
    /// <see cref="State"/> of them.
    /// </summary>
    internal virtual IEnumerable<(string Name, Weight Weight)> FileState => State;

    /// <summary>What goes into a file under the names of <see cref="FileState"/>; tensors made for it belong to the caller's scope.</summary>
    internal virtual IEnumerable<(string Name, Tensor Value)> SavedState => State.Select(entry => (entry.Name, entry.Weight.Value));

    /// <summary>What the part keeps besides, computed and not saved.</summary>
    public virtual IEnumerable<Weight> Derived => [];

    /// <summary>What the base lost at the start of training where neither it nor the file can tell; named as <see cref="State"/> names it.</summary>
    internal virtual IEnumerable<(string Name, Weight Weight)> Start => [];

    /// <summary>What training changes besides the trained weights, by name: a run that resumes needs it.</summary>
    internal virtual IEnumerable<(string Name, Weight Weight)> Progress => [];

    /// <summary>Says that <see cref="Progress"/> has been put back to where a run stood.</summary>
    internal virtual void Resume()
    {
    }

    /// <summary>Whether PEFT saves the frozen weight too where an embedding or a head is adapted.</summary>
    public virtual bool SavesBaseLayer => true;

    /// <summary>Whether the part stands at every module that shares the weight, and changes it alike at each.</summary>
    public virtual bool MergesIntoTied => false;

    /// <summary>
    /// x is what the site gets: [n, in], or ids [n] at an embedding; the result is [n, out]. <c>call.Next(x)</c> is the site
    /// without this part.
    /// </summary>
    public abstract Tensor Forward(Tensor x, in SiteCall call);

    /// <summary>Draws the weights as the method starts.</summary>
    public abstract void Initialize(Site site, Generator generator);

    /// <summary>What the part adds to the loss of a step: a scalar with gradients, or null.</summary>
    public virtual Tensor? Regularization() => null;

    /// <summary>Throws <see cref="AdapterException"/>, saying why, where a part that was loaded cannot train on.</summary>
    internal virtual void RequireTrainable()
    {
    }

    /// <summary>Computes what is not saved, once the saved weights are there.</summary>
    public virtual void Prepare(Site site)
    {
    }

    /// <summary>
    /// The frozen weight [out, in] with this part folded in. Throws <see cref="NotSupportedException"/> where the method
    /// cannot be merged.
    /// </summary>
    public virtual Tensor Merge(Site site, Tensor weight) =>
        throw new NotSupportedException($"{GetType().Name} cannot be merged into the weight of {site.Path}.");

    /// <summary>The frozen bias with this part folded in.</summary>
    public virtual Tensor? MergeBias(Site site, Tensor? bias) => bias;
}

/// <summary>A part that only adds to what its site computes, so that batches of many adapters share the frozen product.</summary>
public abstract class AdditiveSiteAdapter : SiteAdapter
{
    /// <summary>What is added: [n, out] for x [n, in].</summary>
    public abstract Tensor Delta(Tensor x, in SiteCall call);

    public sealed override Tensor Forward(Tensor x, in SiteCall call) => Native.TensorArithmetic.Plus(call.Next(x), Delta(x, call));
}
