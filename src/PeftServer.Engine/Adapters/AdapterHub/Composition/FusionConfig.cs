namespace PeftServer.Engine.Adapters.AdapterHub.Composition;

/// <summary>Settings of a fusion, field for field the library's; its <c>dynamic</c> and <c>static</c> are here by name.</summary>
public sealed record FusionConfig
{
    public static FusionConfig Dynamic { get; } = new();

    public static FusionConfig Static { get; } = new() { Value = false, ValueInitialized = false, Regularization = false };

    /// <summary>Keys are a projection of what the adapters give.</summary>
    public bool Key { get; init; } = true;

    /// <summary>Queries are a projection of what goes into the adapters.</summary>
    public bool Query { get; init; } = true;

    /// <summary>Values are a projection of what the adapters give.</summary>
    public bool Value { get; init; } = true;

    /// <summary>The query is what the block computed, before the model's norm.</summary>
    public bool QueryBeforeLn { get; init; }

    /// <summary>Training adds 0.01·Σ‖I − V‖², see <see cref="ComposedAdapter.RegularizationLoss"/>.</summary>
    public bool Regularization { get; init; } = true;

    /// <summary>The skip connection joins what the adapters give, rather than the result.</summary>
    public bool ResidualBefore { get; init; }

    /// <summary>A temperature that falls with every call. Supported as false only: the library does not save how far it fell.</summary>
    public bool Temperature { get; init; }

    /// <summary>Values are projected before they are weighed, rather than their sum.</summary>
    public bool ValueBeforeSoftmax { get; init; } = true;

    /// <summary>V starts as the identity, almost.</summary>
    public bool ValueInitialized { get; init; } = true;

    /// <summary>Chance that a score is dropped in training; null: the model's for attention.</summary>
    public double? DropoutProb { get; init; }

    internal void Check()
    {
        if (Temperature)
        {
            throw new AdapterException("temperature", "is supported as false only: the library does not save how far it has fallen.");
        }
    }
}
