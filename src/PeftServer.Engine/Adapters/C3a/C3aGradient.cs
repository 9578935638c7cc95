namespace PeftServer.Engine.Adapters.C3a;

/// <summary>Which gradient C3A hands to what is below a module.</summary>
public enum C3aGradient
{
    /// <summary>That of the forward pass.</summary>
    Exact,

    /// <summary>PEFT's, which is not.</summary>
    Peft,
}
