using System.Text.Json.Serialization;
using PeftServer.Engine.Models;

namespace PeftServer.Engine.Adapters;

/// <summary>The settings of a method that attaches a part to each of some modules, named by <see cref="TargetModules"/>.</summary>
public abstract record TargetedConfig : AdapterConfig
{
    /// <summary>Modules to adapt: names, a regular expression, or "all-linear". Absent: PEFT's defaults for the model.</summary>
    public ModuleSelector? TargetModules { get; init; }

    /// <summary>Modules that train in full and are saved beside the adapter, such as a new head.</summary>
    public IReadOnlyList<string>? ModulesToSave { get; init; }

    public override Adapter CreateAdapter(PretrainedModel model) => new TargetedAdapter(Filled(model), model);

    /// <summary>These settings with every default filled in that depends on the model.</summary>
    internal TargetedConfig Filled(PretrainedModel model)
    {
        var resolved = Resolved(model);
        return resolved with
        {
            TargetModules = resolved.TargetModules ?? (resolved.HasOtherTargets ? null : DefaultTargets(model)),
            ModulesToSave = Adapters.TargetModules.WithHeads(resolved.ModulesToSave, resolved.TaskType),
        };
    }

    /// <summary>Whether the settings name something to adapt beside <see cref="TargetModules"/>, so that there may be none of those.</summary>
    [JsonIgnore]
    internal virtual bool HasOtherTargets => false;

    /// <summary>What the method takes when <see cref="TargetModules"/> is absent.</summary>
    protected virtual ModuleSelector DefaultTargets(PretrainedModel model) => Adapters.TargetModules.DefaultFor(model);

    /// <summary>These settings with further defaults filled in that depend on the model.</summary>
    internal virtual TargetedConfig Resolved(PretrainedModel model) => this;

    /// <summary>The parts for <paramref name="sites"/>, one each in their order, and what they share.</summary>
    internal abstract MethodParts CreateParts(IReadOnlyList<Site> sites, PretrainedModel model);

    /// <summary>The site as the projection this method needs. Throws <see cref="AdapterException"/> for another kind.</summary>
    internal static Projection AsProjection(Site site) => site as Projection
        ?? throw new AdapterException("target_modules", $"{site.Path} is not a linear layer, which this method needs.");
}

/// <summary>Settings that can leave modules out.</summary>
public interface IExcludesModules
{
    /// <summary>Modules left out although target_modules names them.</summary>
    ModuleSelector? ExcludeModules { get; }
}

/// <summary>Settings that can take single layers of a model.</summary>
public interface ISelectsLayers
{
    /// <summary>Adapt only these layers; needs a list in target_modules.</summary>
    OneOrMany<int>? LayersToTransform { get; }

    /// <summary>Name of the list of layers, where it is not the usual one.</summary>
    OneOrMany<string>? LayersPattern { get; }
}

/// <summary>Settings that can train biases of the base: none, all, or those of adapted modules (NAME_only).</summary>
public interface ITrainsBias
{
    /// <summary>Which biases of the base train too.</summary>
    string Bias { get; }
}
