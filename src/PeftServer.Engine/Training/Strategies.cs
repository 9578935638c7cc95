namespace PeftServer.Engine.Training;

/// <summary>When something is done that is not done at every step.</summary>
public enum IntervalStrategy
{
    No,

    /// <summary>Every so many steps, and at the last.</summary>
    Steps,

    /// <summary>At the end of every epoch.</summary>
    Epoch,
}

/// <summary>When a checkpoint to resume from is written.</summary>
public enum SaveStrategy
{
    /// <summary>Only when the run is paused.</summary>
    No,

    /// <summary>Every so many steps.</summary>
    Steps,

    /// <summary>At the end of every epoch.</summary>
    Epoch,

    /// <summary>When an evaluation was the best so far.</summary>
    Best,
}
